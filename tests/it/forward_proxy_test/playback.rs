//! A run of a client with many hosts, recorded through the forward proxy, and answered without any of them.

use serde_json::json;

use super::world::World;
use crate::support::curl::{Answer, curl};
use crate::support::httpbin_requests::wait_for_records;
use crate::support::mosquitto::{Mosquitto, Options};

#[test]
fn a_recorded_run_is_answered_through_the_player_with_every_origin_gone() {
    let mut world = World::new();
    let (certificate, ca) = world.authority();
    let broker = Mosquitto::start_now(&Options::default());
    let peer = json!({ "host": "127.0.0.1", "port": broker.port() });
    let player = world.node(
        "player",
        json!({
            "mode": "Playback", "peer": peer, "http": { "port": 0, "forward_proxy": { "ca": ca } },
        }),
    );
    let recorder = world.node(
        "recorder",
        json!({
            "mode": "Record", "peer": peer,
            "http": { "port": 0, "upstream_ca": world.origin.ca, "forward_proxy": { "ca": ca } },
        }),
    );
    let (http, https) = (world.http, world.https);
    let run = |proxy: &str| -> Vec<Answer> {
        [
            (format!("http://localhost:{http}/"), "--http1.1"),
            (format!("http://127.0.3.1:{http}/"), "--http1.1"),
            (format!("http://127.0.3.2:{http}/"), "--proxytunnel"),
            (format!("https://localhost:{https}/"), "--http1.1"),
            (format!("https://localhost:{https}/x?y=1"), "--http2"),
        ]
        .iter()
        .map(|(url, mode)| curl(url, &["--proxy", proxy, "--cacert", &certificate, mode]))
        .collect()
    };
    let recorded = run(recorder.url("record"));
    let bodies: Vec<_> = recorded.iter().map(Answer::text).collect();
    assert_eq!(bodies[1], "GET 127.0.3.1 / auth= via=");
    wait_for_records(&player, 5);
    world.stop_origins();
    let answered = run(player.url("answer"));
    for (answer, recorded) in answered.iter().zip(&recorded) {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), recorded.text());
    }
    let unknown = format!("https://localhost:{https}/never");
    let miss = curl(
        &unknown,
        &["--proxy", player.url("answer"), "--cacert", &certificate],
    );
    assert_eq!(miss.status, 404);
}

#[test]
fn a_player_without_an_authority_says_what_it_would_need() {
    let world = World::new();
    let player = world.node(
        "player",
        json!({ "mode": "Playback", "broker": { "port": 0 }, "http": { "port": 0 } }),
    );
    let answer = crate::support::curl::try_curl(
        "https://localhost:1/",
        &["--proxy", player.url("answer"), "--verbose"],
    );
    let said = answer.unwrap_err();
    assert!(said.contains("501"), "{said}");
}
