//! Real clients speak to real servers through the TCP proxy; a player on the other side of a broker shows what they said.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::certificates;
use crate::support::curl::curl;
use crate::support::databases::{Database, PASSWORD, postgresql_program, psql};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::node::Node;
use crate::support::numbered::Origin;
use crate::support::process::Process;
use crate::support::redis::RedisServer;
use crate::support::{free_port, until};

struct Stage {
    folder: tempfile::TempDir,
    recorder: Node,
    player: Node,
    _broker: Mosquitto,
}

impl Stage {
    /// A recorder in front of the server at `port`, and a player. `tls` is the listener's.
    fn set(port: u16, tls: Option<(&str, &str)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start_now(&Options::default());
        let peer = json!({ "host": "127.0.0.1", "port": broker.port() });
        let mut tcp = json!({
            "port": 0, "downstream": format!("127.0.0.1:{port}"), "service": "behind"
        });
        if let Some((certificate, key)) = tls {
            tcp["tls"] = json!({ "tls_cert": certificate, "tls_key": key });
        }
        let config = json!({
            "mode": "Playback", "node": "az2", "http": { "port": 0 },
            "peer": peer.clone(), "api": { "port": 0 }
        });
        let player = Node::start(&folder.path().join("az2"), &config);
        let config = json!({
            "mode": "Record", "node": "az1", "tcp": tcp, "peer": peer, "api": { "port": 0 }
        });
        let recorder = Node::start(&folder.path().join("az1"), &config);
        Self {
            folder,
            recorder,
            player,
            _broker: broker,
        }
    }

    fn port(&self) -> u16 {
        let address = self.recorder.url("tcp");
        address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The summary of the one stream that this filter lists.
    fn listed(&self, filter: &str) -> Value {
        until(&format!("one stream is listed for {filter}"), || {
            let path = format!("/api/records?protocol=tcp&{filter}");
            let page = self.player.api(&path, &[]).json();
            let records = page["records"].as_array().unwrap();
            assert!(records.len() < 2, "{page:#}");
            records.first().cloned()
        })
    }

    /// What was spoken on it.
    fn application(&self, filter: &str) -> Value {
        let id = self.listed(filter)["id"].as_str().unwrap().to_owned();
        let record = self.player.api(&format!("/api/records/{id}"), &[]).json();
        let application = record["stream"]["application"].clone();
        assert!(application.is_object(), "{record:#}");
        assert_eq!(application["broken"], false, "{application:#}");
        assert!(!record.to_string().contains(PASSWORD), "{record:#}");
        application
    }
}

/// The text of each call with its outcome, and with what the server said went wrong.
fn calls(application: &Value) -> Vec<String> {
    let calls = application["calls"].as_array().unwrap().iter();
    let short = |call: &Value| {
        let text = call["text"].as_str().unwrap();
        match call["outcome"].as_str().unwrap() {
            "ok" => text.to_owned(),
            "error" => format!("{text} !{}", call["error"].as_str().unwrap()),
            other => format!("{text} ?{other}"),
        }
    };
    calls.map(short).collect()
}

/// Runs a client that reads `input`.
fn run(command: &mut Command, input: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let spawned = command.stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn redis_server() -> (tokio::runtime::Runtime, RedisServer) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(RedisServer::start(&[]));
    (runtime, server)
}

#[test]
fn the_commands_of_redis_cli_are_listed_found_and_shown_with_their_errors() {
    let (_runtime, redis) = redis_server();
    let stage = Stage::set(redis.port(), None);
    let port = stage.port().to_string();
    let redis_cli = || {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &port]);
        command
    };
    let asked = "SET tea grün\nGET tea\nLPUSH tea x\nCONFIG SET requirepass hunter2\n\
        AUTH hunter2\nCONFIG SET requirepass \"\"\n";
    let output = run(&mut redis_cli(), asked);
    assert!(String::from_utf8_lossy(&output.stdout).contains("grün"));

    let application = stage.application("method=redis");
    assert_eq!(
        calls(&application),
        [
            "COMMAND DOCS",
            "SET tea grün",
            "GET tea",
            "LPUSH tea x !WRONGTYPE Operation against a key holding the wrong kind of value",
            "CONFIG SET requirepass ***",
            "AUTH ***",
            "CONFIG SET requirepass ***",
        ]
    );
    assert_eq!(application["count"], 7);
    assert!(application["calls"][0]["answer_us"].is_u64());
    for filter in ["path=COMMAND%20DOCS", "q=LPUSH", "service=behind"] {
        let listed = stage.listed(filter);
        assert_eq!(listed["method"], "redis");
        let target = listed["target"].as_str().unwrap();
        assert!(target.contains("; SET tea grün; GET tea; "), "{target}");
    }

    // A pipeline of more than is listed.
    let set = |n: usize| {
        let (key, value) = (format!("key:{n}"), n.to_string());
        let (of_key, of_value) = (key.len(), value.len());
        format!("*3\r\n$3\r\nSET\r\n${of_key}\r\n{key}\r\n${of_value}\r\n{value}\r\n")
    };
    let many: String = (0..5000).map(set).collect();
    let output = run(redis_cli().arg("--pipe"), &many);
    assert!(output.status.success(), "{output:?}");
    let application = stage.application("q=key%3A7");
    let listed = calls(&application);
    assert_eq!(listed.len(), 100);
    assert_eq!(
        (&*listed[0], &*listed[99]),
        ("SET key:0 0", "SET key:99 99")
    );
    assert_eq!(application["count"], 5001, "and the ECHO at its end");

    let mut show = Command::new(env!("CARGO_BIN_EXE_qproxy"));
    show.args([
        "records",
        "--api",
        stage.player.url("api"),
        "--path",
        "COMMAND DOCS",
    ]);
    let shown = show.output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("redis") && shown.contains("SET tea grün; GET tea"),
        "{shown}"
    );
}

#[test]
fn the_queries_of_psql_and_of_prepared_statements_are_shown() {
    let server = Database::postgresql();
    let stage = Stage::set(server.port, None);
    let statements = "CREATE TABLE tea (id int, name text);\n\
        COPY tea FROM STDIN;\n1\tgreen\n\\.\n\
        SELECT name\n  FROM tea;\nSELECT * FROM coffee;\n\
        ALTER USER ada PASSWORD 'hunter2';\n";
    let output = run(&mut psql(stage.port(), "shop"), statements);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "green\n");
    let application = stage.application("method=postgresql");
    assert_eq!(
        calls(&application),
        [
            "CREATE TABLE tea (id int, name text);",
            "COPY tea FROM STDIN;",
            "SELECT name FROM tea;",
            "SELECT * FROM coffee; !42P01 relation \"coffee\" does not exist",
            "ALTER USER ada PASSWORD ***",
        ]
    );
    assert_eq!(application["user"], "ada");
    assert_eq!(application["database"], "shop");
    assert!(application["server_version"].is_string());

    let script = stage.folder.path().join("script.sql");
    std::fs::write(&script, "\\set x 41\nSELECT :x + 1;\n").unwrap();
    for (mode, expected) in [
        ("extended", ["SELECT $1 + 1;"; 3].as_slice()),
        (
            "prepared",
            &[
                "PREPARE SELECT $1 + 1;",
                "SELECT $1 + 1;",
                "SELECT $1 + 1;",
                "SELECT $1 + 1;",
            ],
        ),
    ] {
        let mut pgbench = Command::new(postgresql_program("pgbench"));
        pgbench
            .args(["-n", "-t", "3", "-M", mode, "-f"])
            .arg(&script);
        pgbench.args(["-h", "127.0.0.1", "-U", "ada", "-p"]);
        pgbench
            .arg(stage.port().to_string())
            .arg("shop")
            .env("PGPASSWORD", PASSWORD);
        let output = run(&mut pgbench, "");
        assert!(output.status.success(), "{output:?}");
        let first = expected[0].split(' ').next().unwrap();
        let application = stage.application(&format!("path={first}%20"));
        let shown = calls(&application);
        assert_eq!(shown, expected, "{mode}");
        stage.forget(first);
    }

    let mut wrong = psql(stage.port(), "shop");
    let output = run(wrong.env("PGPASSWORD", "wrong"), "SELECT 1");
    assert!(!output.status.success());
    let application = stage.application("path=CONNECT");
    let expected = "CONNECT !28P01 password authentication failed for user \"ada\"";
    assert_eq!(calls(&application), [expected]);
}

impl Stage {
    /// Deletes the stream whose target begins so.
    fn forget(&self, target: &str) {
        let listed = self.listed(&format!("path={target}%20"));
        let path = format!("/api/records/{}", listed["id"].as_str().unwrap());
        assert_eq!(self.player.api(&path, &["--request", "DELETE"]).status, 204);
    }
}

#[test]
fn the_queries_of_a_mariadb_client_are_shown_without_passwords() {
    let server = Database::mariadb();
    let stage = Stage::set(server.port, None);
    let mut client = Command::new("mariadb");
    client.args([
        "--no-defaults",
        "--protocol=tcp",
        "--skip-ssl",
        "-h",
        "127.0.0.1",
    ]);
    client.args(["--batch", "--force", "--skip-column-names", "-u", "ada"]);
    client
        .arg(format!("-p{PASSWORD}"))
        .arg(format!("-P{}", stage.port()))
        .arg("shop");
    let statements = "CREATE TABLE tea (id int, name text);\n\
        INSERT INTO tea VALUES (1, 'green');\nSELECT name\n FROM tea;\nSELECT * FROM coffee;\n\
        CREATE USER bob IDENTIFIED BY 'hunter2';\nUSE mysql;\n";
    let output = run(&mut client, statements);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "green\n");
    let application = stage.application("method=mysql");
    let shown = calls(&application);
    let expected = [
        "CREATE TABLE tea (id int, name text)",
        "INSERT INTO tea VALUES (1, 'green')",
        "SELECT name FROM tea",
        "SELECT * FROM coffee !1146 Table 'shop.coffee' doesn't exist",
        "CREATE USER bob IDENTIFIED BY ***",
        "USE mysql",
    ];
    for expected in expected {
        assert!(
            shown.iter().any(|call| call == expected),
            "{expected}: {shown:#?}"
        );
    }
    assert_eq!(application["user"], "ada");
    assert_eq!(application["database"], "shop");
    let version = application["server_version"].as_str().unwrap();
    assert!(version.contains("MariaDB"), "{version}");
}

fn s_client(port: u16, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]);
    run(command.args(arguments), input)
}

#[test]
fn tls_that_passes_through_shows_the_name_that_it_is_for() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificates::make(folder.path(), "passage");
    let port = free_port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}")]);
    command
        .arg("-cert")
        .arg(&files.certificate)
        .arg("-key")
        .arg(&files.key);
    let mut server = Process::start(&mut command, "openssl");
    server.expect_line("that it accepts", |line| {
        line.starts_with("ACCEPT").then_some(())
    });
    let stage = Stage::set(port, None);
    let asks = [
        "-servername",
        "shop.example",
        "-alpn",
        "h2,http/1.1",
        "-quiet",
    ];
    let output = s_client(stage.port(), &asks, "GET / HTTP/1.0\r\n\r\n");
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("200 ok"),
        "{output:?}"
    );

    let application = stage.application("host=shop.example");
    assert_eq!(application["protocol"], "tls");
    assert_eq!(application["server_name"], "shop.example");
    assert_eq!(application["alpn"], json!(["h2", "http/1.1"]));
    assert_eq!(
        (&application["encrypted"], &application["count"]),
        (&json!(true), &json!(0))
    );
    let listed = stage.listed("method=tls");
    assert_eq!(listed["target"], "shop.example");
}

#[test]
fn within_tls_that_ends_at_the_listener_commands_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let files = certificates::make(folder.path(), "listener");
    let (_runtime, redis) = redis_server();
    let paths = (
        files.certificate.to_str().unwrap(),
        files.key.to_str().unwrap(),
    );
    let stage = Stage::set(redis.port(), Some(paths));
    let asks = ["-servername", "localhost", "-quiet"];
    let output = s_client(stage.port(), &asks, "PING\r\nFOO bar\r\nQUIT\r\n");
    assert!(output.stdout.starts_with(b"+PONG\r\n"), "{output:?}");
    let application = stage.application("host=localhost");
    let shown = calls(&application);
    assert_eq!((&*shown[0], &*shown[2]), ("PING", "QUIT"));
    assert!(
        shown[1].starts_with("FOO bar !ERR unknown command"),
        "{shown:?}"
    );
    assert_eq!(application["encrypted"], false, "not for us");
}

#[test]
fn http_through_the_tcp_proxy_shows_its_requests() {
    let origin = Origin::start();
    let stage = Stage::set(origin.port, None);
    let url = format!("http://127.0.0.1:{}/n/1?token=hunter2", stage.port());
    assert_eq!(curl(&url, &[]).status, 200);
    let application = stage.application("method=http");
    assert_eq!(calls(&application), ["GET /n/1?token=***"]);
}
