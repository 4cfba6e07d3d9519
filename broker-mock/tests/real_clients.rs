//! The binary with clients that others wrote: `mosquitto_pub` and `mosquitto_sub` (package mosquitto-clients), and
//! paho-mqtt (Python, for MQTT 5).

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// The `broker-mock` process and its port.
struct Server {
    process: Child,
    port: String,
}

impl Server {
    async fn start(args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_broker-mock"))
            .args(args)
            .env("BROKER_TEST_TOKEN", "secret")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("it says where it listens");
        let (_, port) = line.rsplit_once(':').expect("an address");
        let port = port.to_owned();
        Self { process, port }
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(["-h", "127.0.0.1", "-p", &self.port, "-V", "mqttv311"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, program: &str, args: &[&str]) -> std::process::Output {
        let output = self.client(program, args).output();
        timeout(PATIENCE, output)
            .await
            .expect("it ends")
            .unwrap_or_else(missing)
    }
}

fn missing<T>(error: std::io::Error) -> T {
    panic!(
        "mosquitto_pub and mosquitto_sub are needed (apt-get install mosquitto-clients): {error}"
    )
}

/// Makes a durable session with a subscription, so that nothing can be published too early.
async fn subscribe_durably(server: &Server, id: &str, topic: &str, qos: &str) {
    let output = server
        .run(
            "mosquitto_sub",
            &["-i", id, "-c", "-q", qos, "-t", topic, "-E"],
        )
        .await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn mosquitto_clients_exchange_messages_at_every_qos() {
    let server = Server::start(&["127.0.0.1:0"]).await;
    for qos in ["1", "2"] {
        let (id, topic) = (format!("sub-{qos}"), format!("shop/é/{qos}"));
        subscribe_durably(&server, &id, &topic, qos).await;
        for message in ["one", "two", "three"] {
            let output = server
                .run("mosquitto_pub", &["-q", qos, "-t", &topic, "-m", message])
                .await;
            assert!(output.status.success(), "{output:?}");
        }
        let got = server
            .run(
                "mosquitto_sub",
                &["-i", &id, "-c", "-q", qos, "-t", &topic, "-C", "3"],
            )
            .await;
        assert_eq!(String::from_utf8_lossy(&got.stdout), "one\ntwo\nthree\n");
    }
}

#[tokio::test]
async fn mosquitto_clients_see_retained_messages_and_wildcards() {
    let server = Server::start(&["127.0.0.1:0"]).await;
    server
        .run("mosquitto_pub", &["-r", "-t", "node/a", "-m", "online"])
        .await;
    let got = server
        .run("mosquitto_sub", &["-t", "#", "-C", "1", "-F", "%t %r %p"])
        .await;
    assert_eq!(String::from_utf8_lossy(&got.stdout), "node/a 1 online\n");
    let version = server
        .run("mosquitto_sub", &["-t", "$SYS/broker/version", "-C", "1"])
        .await;
    assert!(version.stdout.starts_with(b"broker-mock "), "{version:?}");
}

#[tokio::test]
async fn a_large_file_goes_through() {
    let server = Server::start(&["127.0.0.1:0"]).await;
    subscribe_durably(&server, "large", "file", "1").await;
    let text = "0123456789abcdef".repeat(60_000);
    server
        .run(
            "mosquitto_pub",
            &["-q", "1", "-t", "file", "-m", &text[..100_000]],
        )
        .await;
    let got = server
        .run(
            "mosquitto_sub",
            &[
                "-i", "large", "-c", "-q", "1", "-t", "file", "-C", "1", "-N",
            ],
        )
        .await;
    assert_eq!(got.stdout, &text.as_bytes()[..100_000]);
}

#[tokio::test]
async fn only_who_knows_the_token_comes_in() {
    let args = [
        "127.0.0.1:0",
        "--app-id",
        "shop",
        "--token-env",
        "BROKER_TEST_TOKEN",
    ];
    let server = Server::start(&args).await;
    let publish = ["-t", "a", "-m", "x", "-u", "shop", "-P"];
    let right = server
        .run("mosquitto_pub", &[&publish[..], &["secret"]].concat())
        .await;
    assert!(right.status.success(), "{right:?}");
    let wrong = server
        .run("mosquitto_pub", &[&publish[..], &["guess"]].concat())
        .await;
    assert!(!wrong.status.success());
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("not authorised"),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn the_binary_refuses_what_it_cannot_do() {
    for (args, expected) in [
        (&["0.0.0.0:0"][..], "both app_id and token"),
        (&["nonsense"], "address nonsense"),
        (&["--app-id"], "--app-id needs a value"),
        (&["--what"], "unknown option --what"),
        (
            &["--token-env", "BROKER_TEST_MISSING"],
            "BROKER_TEST_MISSING",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_broker-mock"))
            .args(args)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(expected),
            "{said}"
        );
    }
}

#[tokio::test]
async fn the_binary_stops_in_order_when_it_is_told_to() {
    let mut server = Server::start(&["127.0.0.1:0"]).await;
    let mut watcher = server
        .client("mosquitto_sub", &["-t", "$SYS/broker/version"])
        .spawn()
        .unwrap_or_else(missing);
    let mut first = [0; 5];
    let stdout = watcher.stdout.as_mut().unwrap();
    timeout(PATIENCE, stdout.read_exact(&mut first))
        .await
        .unwrap()
        .unwrap();
    let pid = server.process.id().unwrap().to_string();
    let told = Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .unwrap();
    assert!(told.success());
    let status = timeout(PATIENCE, server.process.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn mosquitto_clients_speak_mqtt_5() {
    let server = Server::start(&["127.0.0.1:0"]).await;
    let durable = ["-V", "mqttv5", "-i", "s", "-c", "-x", "600", "-q", "2"];
    let prepare = [&durable[..], &["-t", "shop/#", "-E"]].concat();
    let output = server.run("mosquitto_sub", &prepare).await;
    assert!(output.status.success(), "{output:?}");
    let publish = [
        "-V",
        "mqttv5",
        "-q",
        "2",
        "-t",
        "shop/é",
        "-m",
        "hello",
        "-D",
        "publish",
        "user-property",
        "name",
        "value",
        "-D",
        "publish",
        "content-type",
        "text",
        "-D",
        "publish",
        "response-topic",
        "answers",
        "-D",
        "publish",
        "message-expiry-interval",
        "600",
    ];
    let output = server.run("mosquitto_pub", &publish).await;
    assert!(output.status.success(), "{output:?}");
    let receive = [
        &durable[..],
        &["-t", "shop/#", "-C", "1", "-F", "%t|%p|%P|%C|%R"],
    ]
    .concat();
    let got = server.run("mosquitto_sub", &receive).await;
    let said = String::from_utf8_lossy(&got.stdout);
    assert_eq!(said, "shop/é|hello|name:value|text|answers\n", "{got:?}");
    let old = server
        .run("mosquitto_pub", &["-t", "x", "-m", "1", "-q", "1"])
        .await;
    assert!(old.status.success(), "{old:?}");
}

#[tokio::test]
async fn paho_speaks_mqtt_5() {
    let server = Server::start(&["127.0.0.1:0"]).await;
    let python = std::env::var_os("QPROXY_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers_v5.py");
    let output = Command::new(python)
        .args([script, &server.port])
        .kill_on_drop(true)
        .output();
    let output = timeout(3 * PATIENCE, output)
        .await
        .expect("it ends")
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said} (paho-mqtt of tests/requirements.txt is needed; QPROXY_TEST_PYTHON names a Python that has it)"
    );
}
