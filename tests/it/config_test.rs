//! The configuration from outside: the user's own example, the shipped default, its reference, and mistakes.

#![allow(clippy::unwrap_used, reason = "helpers of tests count as tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use qproxy::config::{self, Environment, Mode, Peer, Settings, StoreSettings};
use secrecy::ExposeSecret;

const USER_EXAMPLE: &str = include_str!("../data/user-guide-config.json");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn parse(text: &str) -> Result<Settings, config::Problems> {
    config::parse(text, &Environment::default())
}

fn good(text: &str) -> Settings {
    parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// What is said about a bad file, as one text.
fn bad(text: &str) -> String {
    match parse(text) {
        Err(problems) => problems.to_string(),
        Ok(settings) => panic!("accepted: {text}\n{settings}"),
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_users_example_means_what_it_says() {
    let settings = good(USER_EXAMPLE);
    assert_eq!(settings.mode, Mode::Record);
    let http = settings.http.unwrap();
    assert_eq!(http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(http.downstream, ["http://localhost:8081"]);
    let [tcp] = settings.tcp.as_slice() else {
        panic!("{:?}", settings.tcp)
    };
    assert_eq!(tcp.listen.to_string(), "127.0.0.1:8082");
    assert_eq!(tcp.downstream[0].to_string(), "localhost:8083");
    let tls = tcp.tls.as_ref().unwrap();
    assert_eq!(
        (tls.files.cert.to_str(), tls.files.key.to_str()),
        (Some("cert.pem"), Some("key.pem"))
    );
    let Peer { endpoint, tls } = settings.peer.unwrap();
    assert_eq!(
        (endpoint.to_string().as_str(), tls),
        ("remote-host:8084", true)
    );
    assert!(settings.broker.is_none() && settings.unused.is_empty());
}

#[test]
fn the_broker_can_have_a_certificate_and_names_what_is_missing_of_it() {
    let settings = good(
        r#"{"mode": "Playback", "broker": {"port": 0, "tls": {"tls_cert": "c", "tls_key": "k"}}}"#,
    );
    let tls = settings.broker.and_then(|broker| broker.tls).unwrap();
    assert_eq!((tls.cert, tls.key), ("c".into(), "k".into()));
    let said = bad(r#"{"mode": "Playback", "broker": {"tls": {"tls_cert": "c"}}}"#);
    assert!(said.to_string().contains("broker.tls.tls_key"), "{said}");
}

#[test]
fn check_says_in_one_line_that_a_file_is_good_and_names_a_missing_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let text = USER_EXAMPLE
        .replace("cert.pem", &at("cert.pem"))
        .replace("key.pem", &at("key.pem"));
    let path = write(folder.path(), "config.json", &text);
    write(folder.path(), "key.pem", "key");
    let said = config::check(&path, &Environment::default()).unwrap_err();
    let [problem] = said.list() else {
        panic!("{said}")
    };
    assert_eq!(problem.key, "tcp.tls.tls_cert");
    assert!(problem.message.contains(&at("cert.pem")), "{said}");

    write(folder.path(), "cert.pem", "certificate");
    let line = config::check(&path, &Environment::default()).unwrap();
    assert!(
        line.contains("good") && line.contains("mode Record") && !line.contains('\n'),
        "{line}"
    );
}

#[test]
fn a_missing_authority_is_named_by_its_listener() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"{ "mode": "Forward", "tcp": [
        { "port": 0, "service": "a", "downstream": "localhost:1" },
        { "port": 0, "service": "b", "downstream": "localhost:2", "upstream_ca": "no-such.pem" }
    ] }"#;
    let path = write(folder.path(), "config.json", text);
    let said = config::check(&path, &Environment::default()).unwrap_err();
    assert_eq!(said.list()[0].key, "tcp[1].upstream_ca", "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said =
        config::check(Path::new("/nowhere/config.json"), &Environment::default()).unwrap_err();
    let said = said.to_string();
    assert!(
        said.contains("/nowhere/config.json") && said.contains("CONFIG_PATH"),
        "{said}"
    );
}

#[test]
fn the_default_file_works_on_this_machine_alone() {
    let text = std::fs::read_to_string(root().join("config.json")).unwrap();
    let settings = good(&text);
    assert_eq!(settings.mode, Mode::Standalone);
    assert_eq!(settings.http.unwrap().listen.to_string(), "127.0.0.1:8080");
    assert_eq!(
        settings.playback.answer.unwrap().listen.to_string(),
        "127.0.0.1:8092"
    );
    assert_eq!(settings.api.listen.to_string(), "127.0.0.1:8090");
    assert_eq!(
        settings.broker.unwrap().listen.to_string(),
        "127.0.0.1:8084"
    );
    assert_eq!(settings.retention.max_bytes, Some(10 << 30));
    let StoreSettings::Embedded { path, .. } = settings.store else {
        panic!("not embedded")
    };
    assert_eq!(path.to_str(), Some("data"));
}

/// The keys that the reader knows under `path`, learnt from what it says about a key that it cannot know.
fn known_keys(path: &[&str]) -> Vec<String> {
    let list =
        |key: &str| path.len() > 1 && matches!(key, "include" | "exclude" | "routes" | "old_keys");
    let mut text = "{\"no-such-key-anywhere\": 0}".to_owned();
    for key in path.iter().rev() {
        let value = if list(key) { format!("[{text}]") } else { text };
        text = format!("{{\"{key}\": {value}}}");
    }
    let Err(problems) = config::parse(&text, &Environment::default()) else {
        return Vec::new();
    };
    let said = problems.to_string();
    let Some((_, known)) = said.split_once("is not a known key; there are ") else {
        return Vec::new();
    };
    known
        .lines()
        .next()
        .unwrap()
        .split(", ")
        .map(str::to_owned)
        .collect()
}

fn collect_keys(path: &mut Vec<String>, found: &mut BTreeSet<String>) {
    let borrowed: Vec<&str> = path.iter().map(String::as_str).collect();
    for key in known_keys(&borrowed) {
        path.push(key);
        found.insert(path.join("."));
        collect_keys(path, found);
        path.pop();
    }
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let mut known = BTreeSet::new();
    collect_keys(&mut Vec::new(), &mut known);
    for sample in [
        "mode",
        "http.tls.tls_key",
        "capture.redact.json",
        "capture.include.paths",
        "tcp.tls.tls_cert",
    ] {
        assert!(
            known.contains(sample),
            "the walk did not find {sample}: {known:?}"
        );
    }
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let table = page
        .split("## Keys")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<String> = rows
        .map(|row| row.split('`').next().unwrap().to_owned())
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn modes_decide_what_must_be_there() {
    let needs = bad(r#"{"mode": "Record", "http": {"downstream": "http://a:1"}}"#);
    assert!(
        needs.contains("`peer`") && needs.contains("broker"),
        "{needs}"
    );
    for mode in ["Record", "Standalone", "Forward"] {
        let said = bad(&format!(r#"{{"mode": "{mode}", "peer": {{"host": "h"}}}}"#));
        assert!(said.contains("needs `http` or `tcp`"), "{said}");
    }
    let playback = good(r#"{"mode": "Playback", "http": {"port": 9}}"#);
    assert_eq!(
        playback.broker.unwrap().listen.to_string(),
        "127.0.0.1:8084"
    );
    assert_eq!(playback.playback.answer.unwrap().listen.port, 9);
    assert!(playback.http.is_none());
    let elsewhere = good(r#"{"mode": "Playback", "peer": {"host": "h"}}"#);
    assert!(elsewhere.broker.is_none() && elsewhere.peer.unwrap().endpoint.port == 8084);
    let forward =
        good(r#"{"mode": "Forward", "http": {"downstream": ["http://a:1", "https://b"]}}"#);
    assert!(forward.peer.is_none() && forward.broker.is_none());
    assert_eq!(
        forward.http.unwrap().downstream,
        ["http://a:1", "https://b:443"]
    );
}

#[test]
fn what_a_mode_does_not_use_is_told() {
    let tcp = r#"{"port": 1, "downstream": "a:1"}"#;
    let settings = good(&format!(
        r#"{{"mode": "Playback", "http": {{"downstream": "http://a:1"}}, "tcp": {tcp}}}"#
    ));
    assert_eq!(settings.unused, ["http.downstream", "tcp"]);
}

#[test]
fn routes_name_their_requests_and_their_service() {
    let settings = good(
        r#"{ "mode": "Forward", "http": { "downstream": "http://a:1", "service": "shop", "forwarded": "x-forwarded",
            "routes": [
                { "host": "*.Admin.test", "downstream": ["h2c://b:2", "http://c"] , "service": "admin" },
                { "path": "/orders", "downstream": "https://d" } ] } }"#,
    );
    let http = settings.http.unwrap();
    assert_eq!(http.forwarded, config::Forwarded::XForwarded);
    let [admin, orders] = &*http.routes else {
        panic!("{:?}", http.routes)
    };
    assert_eq!(
        (admin.host.as_deref(), &*admin.path),
        (Some("*.admin.test"), "/")
    );
    assert_eq!(admin.downstream, ["h2c://b:2", "http://c:80"]);
    assert_eq!(&*admin.service, "admin");
    assert_eq!((orders.host.as_deref(), &*orders.path), (None, "/orders"));
    assert_eq!(
        (&*orders.downstream, &*orders.service),
        (&["https://d:443".to_owned()][..], "shop")
    );
    for (route, key) in [
        (r#"{ "downstream": "http://a" }"#, "http.routes[0]"),
        (
            r#"{ "host": "a:1", "downstream": "http://a" }"#,
            "http.routes[0].host",
        ),
        (
            r#"{ "path": "x", "downstream": "http://a" }"#,
            "http.routes[0].path",
        ),
        (r#"{ "path": "/x" }"#, "http.routes[0].downstream"),
        (
            r#"{ "path": "/x", "downstream": "a" }"#,
            "http.routes[0].downstream",
        ),
        (
            r#"{ "path": "/x", "downstream": "http://a", "service": "" }"#,
            "http.routes[0].service",
        ),
    ] {
        let said = bad(&format!(
            r#"{{ "mode": "Forward", "http": {{ "downstream": "http://a", "routes": [{route}] }} }}"#
        ));
        assert!(said.contains(key), "{route}: {said}");
    }
}

#[test]
fn tcp_and_downstream_are_one_or_many() {
    let one = r#"{"port": 1, "downstream": "a:1"}"#;
    let two = r#"{"port": 2, "downstream": ["a:1", "[::1]:2"]}"#;
    let settings = good(&format!(r#"{{"mode": "Forward", "tcp": [{one}, {two}]}}"#));
    let services: Vec<_> = settings
        .tcp
        .iter()
        .map(|tcp| tcp.service.as_str())
        .collect();
    assert_eq!(services, ["tcp-1", "tcp-2"]);
    assert_eq!(settings.tcp[1].downstream[1].to_string(), "[::1]:2");
    let twice = bad(&format!(r#"{{"mode": "Forward", "tcp": [{one}, {one}]}}"#));
    assert!(twice.contains("`tcp[1].service`"), "{twice}");
}

/// Bad files, the key at fault, and what must be said of it.
const MISTAKES: &[(&str, &str, &str)] = &[
    (r#"{"http": {}}"#, "mode", "missing"),
    (r#"{"mode": "Rekord"}"#, "mode", "Rekord"),
    (
        r#"{"mode": "Forward", "http": {"prot": 1}}"#,
        "http.prot",
        "`port`",
    ),
    (r#"{"mode": "Forward", "htpt": {}}"#, "htpt", "`http`"),
    (
        r#"{"mode": "Forward", "http": {"port": 70000}}"#,
        "http.port",
        "70000",
    ),
    (
        r#"{"mode": "Forward", "http": {"port": "80"}}"#,
        "http.port",
        "\"80\"",
    ),
    (
        r#"{"mode": "Forward", "http": {"downstream": "a:1"}}"#,
        "http.downstream",
        "a:1",
    ),
    (
        r#"{"mode": "Forward", "http": {"downstream": []}}"#,
        "http.downstream",
        "missing",
    ),
    (
        r#"{"mode": "Forward", "http": {"host": "a b", "downstream": "http://a"}}"#,
        "http.host",
        "a b",
    ),
    (
        r#"{"mode": "Forward", "http": {"downstream": "http://a", "tls": {"tls_cert": "c"}}}"#,
        "http.tls.tls_key",
        "missing",
    ),
    (
        r#"{"mode": "Forward", "tcp": [{"port": 1, "downstream": "a"}]}"#,
        "tcp.downstream",
        "`a`",
    ),
    (
        r#"{"mode": "Forward", "tcp": [{"port": 1, "downstreem": "a"}]}"#,
        "tcp[0].downstreem",
        "`downstream`",
    ),
    (
        r#"{"mode": "Forward", "tcp": {"downstream": "a:1"}}"#,
        "tcp.port",
        "missing",
    ),
    (
        r#"{"mode": "Playback", "broker": {"host": "0.0.0.0"}}"#,
        "broker.host",
        "mqtt.token",
    ),
    (
        r#"{"mode": "Playback", "peer": {"port": 1}}"#,
        "peer.host",
        "missing",
    ),
    (
        r#"{"mode": "Playback", "http": {}, "playback": {"http": {}}}"#,
        "playback.http",
        "http",
    ),
];

/// The same, as keys beside a proxy that is as it should be.
const MISTAKES_BESIDE_HTTP: &[(&str, &str, &str)] = &[
    (r#""node": "a/b""#, "node", "a/b"),
    (
        r#""retention": {"max_age": "24"}"#,
        "retention.max_age",
        "24",
    ),
    (r#""retention": {"max_age": 24}"#, "retention.max_age", "24"),
    (
        r#""retention": {"max_bytes": "10G"}"#,
        "retention.max_bytes",
        "10G",
    ),
    (
        r#""retention": {"max_bytes": -1}"#,
        "retention.max_bytes",
        "-1",
    ),
    (r#""capture": {"sample": 1.5}"#, "capture.sample", "1.5"),
    (
        r#""capture": {"include": [{"statuses": ["6x"]}]}"#,
        "capture.include[0].statuses[0]",
        "6x",
    ),
    (
        r#""capture": {"redact": {"json": ["a"]}}"#,
        "capture.redact.json[0]",
        "`a`",
    ),
    (r#""api": {"host": "0.0.0.0"}"#, "api.host", "0.0.0.0"),
    (r#""api": {"token": "a b"}"#, "api.token", "visible"),
    (r#""mqtt": {"root": "a/b"}"#, "mqtt.root", "a/b"),
    (r#""mqtt": {"protocol": "3.1"}"#, "mqtt.protocol", "3.1"),
    (
        r#""mqtt": {"keep_alive": "1d"}"#,
        "mqtt.keep_alive",
        "65535",
    ),
    (r#""mqtt": {"token": "t"}"#, "mqtt.app_id", "missing"),
    (r#""mqtt": {"transport": "quic"}"#, "mqtt.transport", "quic"),
    (
        r#""peer": {"host": "h"}, "mqtt": {"transport": "websocket", "path": "a b"}"#,
        "mqtt.path",
        "a b",
    ),
    (r#""mqtt": {"path": "/mqtt"}"#, "mqtt.path", "websocket"),
    (
        r#""peer": {"host": "h"}, "mqtt": {"alpn": ["mqtt"]}"#,
        "mqtt.alpn",
        "tls",
    ),
    (
        r#""peer": {"host": "h", "tls": true}, "mqtt": {"alpn": [""]}"#,
        "mqtt.alpn",
        "255",
    ),
    (
        r#""mqtt": {"transport": "websocket"}"#,
        "mqtt.transport",
        "peer",
    ),
    (r#""mqtt": {"proxy": "http://p"}"#, "mqtt.proxy", "peer"),
    (
        r#""store": {"path": "a", "redis": "redis://h"}"#,
        "store",
        "only one",
    ),
    (
        r#""store": {"redis": "http://h"}"#,
        "store.redis",
        "redis://",
    ),
    (r#""playback": {"miss": "shrug"}"#, "playback.miss", "shrug"),
    (
        r#""playback": {"miss": "pass_through"}"#,
        "playback.upstream",
        "missing",
    ),
    (r#""playback": {"delay": "long"}"#, "playback.delay", "long"),
    (
        r#""sync": {"max_message_bytes": 1}"#,
        "sync.max_message_bytes",
        "`1`",
    ),
];

#[test]
fn each_mistake_names_its_key_and_its_value() {
    let beside = MISTAKES_BESIDE_HTTP.iter().map(|(rest, key, value)| {
        let http = r#""http": {"downstream": "http://a:1"}"#;
        (
            format!(r#"{{"mode": "Forward", {http}, {rest}}}"#),
            key,
            value,
        )
    });
    let whole = MISTAKES
        .iter()
        .map(|(text, key, value)| ((*text).to_owned(), key, value));
    for (text, key, value) in whole.chain(beside) {
        let said = bad(&text);
        let named = said
            .lines()
            .find(|line| line.contains(&format!("`{key}`: ")));
        let named = named.unwrap_or_else(|| panic!("{text}\n{said}"));
        assert!(named.contains(value), "{text}\n{said}");
    }
}

#[test]
fn several_mistakes_are_told_at_once() {
    let said = bad(
        r#"{"mode": "Forward", "http": {"downstream": "x"}, "node": "a b", "capture": {"sample": 2}}"#,
    );
    assert_eq!(said.lines().count(), 3, "{said}");
}

#[test]
fn broken_json_has_a_line_and_a_column() {
    let said = bad("{\n  \"mode\": \"Record\",\n  oops\n}");
    assert!(said.contains("line 3, column 3"), "{said}");
    assert!(bad("{\"mode\": \"Forward\"").contains("line 1"));
    assert!(bad(r#"{"mode": "Forward"} x"#).contains("trailing"));
}

#[test]
fn the_environment_wins_and_secrets_are_never_printed() {
    let variables = [
        ("QPROXY_API_TOKEN", "api-s3cret"),
        ("QPROXY_MQTT_APP_ID", "app"),
        ("QPROXY_MQTT_TOKEN", "mqtt-s3cret"),
        ("CONFIG_PATH", "/etc/q.json"),
        ("QPROXY_REDIS_URL", ""),
    ];
    let environment = Environment::from_lookup(|name| {
        variables
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| (*value).to_owned())
    });
    assert_eq!(environment.path(), Path::new("/etc/q.json"));
    assert_eq!(Environment::default().path(), Path::new("config.json"));
    let text = r#"{"mode": "Playback", "broker": {"host": "0.0.0.0"},
                   "api": {"host": "0.0.0.0", "token": "from-file-s3cret"},
                   "mqtt": {"app_id": "old", "token": "from-file-s3cret"}}"#;
    let settings = config::parse(text, &environment).unwrap();
    assert_eq!(
        settings.api.token.as_ref().unwrap().expose_secret(),
        "api-s3cret"
    );
    assert_eq!(
        settings.mqtt.token.as_ref().unwrap().expose_secret(),
        "mqtt-s3cret"
    );
    assert_eq!(settings.mqtt.app_id.as_deref(), Some("app"));
    let printed = format!("{settings:?} {settings} {environment:?}");
    assert!(!printed.contains("s3cret"), "{printed}");
}

#[test]
fn the_way_to_the_peer_is_taken_over_and_its_secret_is_never_printed() {
    let settings = good(
        r#"{"mode": "Playback", "peer": {"host": "h", "tls": true},
            "mqtt": {"transport": "websocket", "path": "/bus?x=1", "alpn": ["http/1.1"],
                     "proxy": "socks5://user:s3cret@proxy:1080"}}"#,
    );
    let way = &settings.mqtt.way;
    assert_eq!(way.websocket.as_deref(), Some("/bus?x=1"));
    assert_eq!(way.alpn, ["http/1.1"]);
    let proxy = way.proxy.as_ref().unwrap().expose_secret();
    assert_eq!(proxy, "socks5://user:s3cret@proxy:1080");
    let printed = format!("{settings:?} {settings}");
    assert!(!printed.contains("s3cret"), "{printed}");
    assert!(printed.contains("peer wss://h:8084"), "{printed}");
    let plain =
        good(r#"{"mode": "Playback", "peer": {"host": "h"}, "mqtt": {"transport": "websocket"}}"#);
    assert_eq!(plain.mqtt.way.websocket.as_deref(), Some("/mqtt"));
}

#[test]
fn a_secret_of_the_wrong_type_is_not_shown() {
    let said = bad(r#"{"mode": "Playback", "store": {"redis_cluster": "redis://:s3cret@h"}}"#);
    assert!(
        said.contains("`store.redis_cluster`") && !said.contains("s3cret"),
        "{said}"
    );
}

#[test]
fn a_node_without_a_name_takes_the_machines() {
    let settings = good(r#"{"mode": "Playback"}"#);
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    assert!((1..=64).contains(&settings.node.len()) && settings.node.bytes().all(legal));
}

#[test]
fn keys_of_encryption_are_named_once_and_lie_in_one_place() {
    let with = |encryption: &str| {
        format!(r#"{{"mode": "Playback", "http": {{"port": 9}}, "encryption": {encryption}}}"#)
    };
    let settings = good(&with(
        r#"{"key_id": "b", "key_file": "b.key", "old_keys": [{"key_id": "a", "key_env": "A_KEY"}]}"#,
    ));
    let names: Vec<_> = settings.encryption.iter().map(|key| &*key.id).collect();
    assert_eq!(names, ["b", "a"]);
    for (typed, wanted) in [
        (r#"{"key_file": "x"}"#, "`encryption.key_id`"),
        (r#"{"key_id": "a b", "key_file": "x"}"#, "`a b` must be"),
        (
            r#"{"key_id": "a"}"#,
            "needs one of `key_file` and `key_env`",
        ),
        (
            r#"{"key_id": "a", "key_file": "x", "key_env": "X"}"#,
            "needs one of `key_file` and `key_env`",
        ),
        (
            r#"{"key_id": "a", "key_file": "x", "old_keys": [{"key_id": "a", "key_file": "y"}]}"#,
            "`encryption.old_keys[0].key_id`: `a` is the name of the key of `encryption` too",
        ),
    ] {
        let said = bad(&with(typed));
        assert!(said.contains(wanted), "{said}");
    }
}
