//! What a running node lives through: it says what is wrong, goes on, and loses nothing.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use qproxy::mqtt_client::client::MqttClient;
use serde_json::Value;

use super::stage::{
    SmallDisk, expect_stored, logged, player, recorder, send, stored, unwell, well,
};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::Origin;
use crate::support::until;

/// What `key` of the recorder's ledger says.
fn recorded(recorder: &Node, key: &str) -> u64 {
    let status = recorder.status();
    let ledger = &status["ledger"]["recorder"];
    ledger[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no {key} in {status:#}"))
}

/// How many of the recorder's items the full disk has cost.
fn dropped(recorder: &Node) -> u64 {
    let status = recorder.status();
    let dropped = &status["ledger"]["recorder"]["dropped"]["spool_write"];
    dropped
        .as_u64()
        .unwrap_or_else(|| panic!("no spool_write in {status:#}"))
}

#[test]
fn a_broker_that_refuses_credentials_stops_no_traffic_and_gets_the_records_once_it_lets_in() {
    let folder = tempfile::tempdir().unwrap();
    let user = Some(("player", "p1"));
    let mut broker = Mosquitto::start_now(&Options {
        user,
        ..Options::default()
    });
    let origin = Origin::start();
    let login = |mut config: Value, user: &str, token: &str| {
        config["mqtt"] = serde_json::json!({ "app_id": user, "token": token });
        config
    };
    let player = login(player(broker.port()), "player", "p1");
    let player = Node::start(&folder.path().join("player"), &player);
    let recorder = login(
        recorder(broker.port(), &origin.url()),
        "recorder",
        "hunter2",
    );
    let mut recorder = Node::start(&folder.path().join("recorder"), &recorder);

    send(&recorder, 0..20);
    let server = format!("127.0.0.1:{}", broker.port());
    let reason = unwell(&recorder, "refused the connection");
    assert!(
        reason.contains(&server) && reason.contains("mqtt.token"),
        "{reason}"
    );
    logged(
        &mut recorder,
        &[
            "refused the connection",
            &server,
            "`mqtt.app_id` and `mqtt.token`",
        ],
    );
    assert!(!recorder.process().said().contains("hunter2"));
    until("all is in the spool", || {
        (recorded(&recorder, "unsent") == 20).then_some(())
    });
    assert!(stored(&player).is_empty());

    broker.stop();
    broker.let_in("recorder", "hunter2");
    broker.launch_now();
    expect_stored(&player, 0..20);
    well(&recorder);
}

#[test]
fn an_unknown_broker_is_named_with_the_key_and_stops_no_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start();
    let mut config = recorder(1883, &origin.url());
    config["peer"]["host"] = "no-such-host.invalid".into();
    let mut recorder = Node::start(folder.path(), &config);
    send(&recorder, 0..5);
    let reason = unwell(&recorder, "could not resolve");
    assert!(
        reason.contains("no-such-host.invalid") && reason.contains("`peer.host`"),
        "{reason}"
    );
    logged(
        &mut recorder,
        &[
            "no-such-host.invalid:1883",
            "could not resolve",
            "`peer.host`",
        ],
    );
    until("all is in the spool", || {
        (recorded(&recorder, "unsent") == 5).then_some(())
    });
}

#[test]
fn a_full_disk_under_the_recorder_costs_counted_copies_and_no_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let mut config = recorder(broker.port(), &origin.url());
    config["store"]["path"] = disk.path().join("data").display().to_string().into();
    let mut recorder = Node::start(&folder.path().join("recorder"), &config);
    send(&recorder, 0..5);
    expect_stored(&player, 0..5);

    disk.fill();
    // What still fits the last block of the file is no loss; then every copy is one, and the sum is right.
    let mut sent = 5;
    until("a copy is dropped", || {
        send(&recorder, sent..sent + 20);
        sent += 20;
        (dropped(&recorder) > 0).then_some(())
    });
    let spool = disk.path().join("data/spool").display().to_string();
    logged(
        &mut recorder,
        &["captured items are lost", "no space left", &spool],
    );

    disk.make_room();
    send(&recorder, sent..sent + 5);
    logged(&mut recorder, &["captured items are kept again"]);
    let last: Vec<u32> = (sent..sent + 5).collect();
    until("what came after is stored", || {
        stored(&player).ends_with(&last).then_some(())
    });
    let lost = dropped(&recorder);
    let total = u64::from(sent) + 5;
    assert_eq!(
        stored(&player).len() as u64 + lost,
        total,
        "stored and dropped are all"
    );
    until("the player knows what was dropped", || {
        let status = player.status();
        let life = &status["ledger"]["player"]["recorders"][0];
        (life["dropped"] == lost && life["missing"] == 0 && life["lost"] == 0).then_some(())
    });
}

/// Sends until the player's disk is full; gives the first number that was not sent.
fn fill_up(disk: &SmallDisk, player: &Node, recorder: &Node, first: u32) -> u32 {
    disk.fill();
    let mut next = first;
    until("the store is full", || {
        send(recorder, next..next + 20);
        next += 20;
        (player.api("/healthz", &[]).status == 503).then_some(())
    });
    let had = stored(player).len();
    send(recorder, next..next + 5);
    until("the broker has all", || {
        (recorded(recorder, "unsent") == 0).then_some(())
    });
    assert_eq!(stored(player).len(), had, "there is no room");
    next + 5
}

#[test]
fn a_full_disk_under_the_player_is_not_acknowledged_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let mut config = player(broker.port());
    let data = disk.path().join("data").display().to_string();
    config["store"]["path"] = data.as_str().into();
    let mut player = Node::start(&folder.path().join("player"), &config);
    let recorder = recorder(broker.port(), &origin.url());
    let mut recorder = Node::start(&folder.path().join("recorder"), &recorder);
    send(&recorder, 0..5);
    expect_stored(&player, 0..5);

    let sent = fill_up(&disk, &player, &recorder, 5);
    let reason = unwell(&player, "nothing is stored");
    assert!(
        reason.contains("no space left") && reason.contains(&data),
        "{reason}"
    );
    let words = ["store refuses records", "nothing is acknowledged", &data];
    logged(&mut player, &words);
    disk.make_room();
    expect_stored(&player, 0..sent);
    well(&player);

    // Without the recorder and what the player had in memory, only messages that the broker holds for want of
    // a PUBACK can bring the rest.
    let sent = fill_up(&disk, &player, &recorder, sent);
    recorder.kill();
    player.kill();
    disk.make_room();
    player.kill_and_restart();
    expect_stored(&player, 0..sent);
    well(&player);
}

/// The one segment file of the store in `data`.
fn segment(data: &Path) -> PathBuf {
    let files = fs::read_dir(data.join("records")).unwrap().flatten();
    let mut segments = files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "seg"));
    let found = segments.next().expect("a segment");
    assert_eq!(segments.next(), None, "one segment only");
    found
}

#[test]
fn a_corrupt_segment_is_reported_the_rest_is_served_and_the_recorder_sends_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let mut player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let mut recorder = Node::start(
        &folder.path().join("recorder"),
        &recorder(broker.port(), &origin.url()),
    );
    for number in 0..12 {
        send(&recorder, number..number + 1);
        // One by one, so that each is a batch of its own in the file.
        expect_stored(&player, 0..number + 1);
    }
    assert_eq!(recorder.process().terminate(), Some(0));
    assert_eq!(player.process().terminate(), Some(0));

    let path = segment(&folder.path().join("player/data"));
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, middle).unwrap();
    file.write_all_at(&bytes.map(|byte| !byte), middle).unwrap();

    player.kill_and_restart();
    logged(
        &mut player,
        &["a part of the store cannot be read", ".damaged"],
    );
    let left = stored(&player);
    assert!(!left.is_empty() && left.len() < 12, "{left:?}");
    let page = player.api("/api/records", &[]).json();
    for record in page["records"].as_array().unwrap() {
        let id = record["id"].as_str().unwrap();
        assert_eq!(player.api(&format!("/api/records/{id}"), &[]).status, 200);
    }

    recorder.kill_and_restart();
    expect_stored(&player, 0..12);
}

#[test]
fn what_is_not_messagepack_is_counted_and_quarantined_and_the_subscriber_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let mut player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let recorder = recorder(broker.port(), &origin.url());
    let recorder = Node::start(&folder.path().join("recorder"), &recorder);
    send(&recorder, 0..2);
    expect_stored(&player, 0..2);

    let topic = "qproxy/traffic/stranger/shop/http/GET/200";
    let published = Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port().to_string(),
            "-q",
            "1",
        ])
        .args(["-t", topic, "-m", "this is no MessagePack"])
        .status()
        .unwrap_or_else(|error| {
            panic!("cannot run mosquitto_pub: {error}. Install mosquitto-clients")
        });
    assert!(published.success());
    let kept = until("it is in quarantine", || {
        let status = player.status();
        let quarantine = status["ledger"]["player"]["quarantine"].as_array()?;
        quarantine.first().cloned()
    });
    assert_eq!(kept["topic"], topic);
    assert_eq!(kept["bytes"], "this is no MessagePack".len());
    assert!(
        kept["reason"].as_str().unwrap().contains("MessagePack"),
        "{kept}"
    );
    logged(&mut player, &[topic, "message cannot be read"]);
    let metrics = player.api("/metrics", &[]).text();
    let counted = |line: &str| line.contains("sync_quarantined") && line.ends_with(" 1");
    assert!(metrics.lines().any(counted), "{metrics}");

    send(&recorder, 2..4);
    expect_stored(&player, 0..4);
    well(&player);
}

#[test]
fn a_publisher_whose_session_another_client_takes_starts_again_and_works_once_that_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, broker) = (Origin::start(), Mosquitto::start_now(&Options::default()));
    let player = Node::start(&folder.path().join("player"), &player(broker.port()));
    let recorder = recorder(broker.port(), &origin.url());
    let recorder = Node::start(&folder.path().join("recorder"), &recorder);
    send(&recorder, 0..2);
    expect_stored(&player, 0..2);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut rival = broker.config("recorder-publisher");
    // It never gives way.
    rival.takeover.connections = 0;
    let rival = MqttClient::new(rival);
    runtime.block_on(rival.start()).unwrap();
    let reason = unwell(&recorder, "it is started again");
    assert!(reason.contains("publisher: "), "{reason}");
    send(&recorder, 2..6);

    runtime.block_on(rival.disconnect()).unwrap();
    expect_stored(&player, 0..6);
    well(&recorder);
    let page = recorder.api("/metrics", &[]).text();
    let again = "qproxy_part_restarts_total{part=\"publisher\"} ";
    let count = page.lines().find_map(|line| line.strip_prefix(again));
    let count: f64 = count.expect("restarts are counted").parse().unwrap();
    assert!(count >= 1.0, "{page}");
}
