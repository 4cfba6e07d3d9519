//! The library's examples do what they say, against Mosquitto.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::certificates::{self, TlsFiles};
use crate::support::mosquitto::{Mosquitto, Options};
use crate::support::process::Process;

/// Builds all examples, once, beside this test; where `cargo test --workspace` did that already, nothing is to do.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let profile = program.parent().unwrap().parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build
            .args([
                "build",
                "--quiet",
                "--locked",
                "--workspace",
                "--examples",
                "--target-dir",
            ])
            .arg(profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "the examples do not build"
        );
        profile.join("examples")
    })
}

fn example(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(folder().join(name));
    command.args(arguments);
    command
}

fn run(name: &str, arguments: &[&str], input: &str) -> Output {
    let mut command = example(name, arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn server(broker: &Mosquitto) -> String {
    format!("localhost:{}", broker.port())
}

#[test]
fn what_publish_reads_subscribe_prints() {
    let broker = Mosquitto::start_now(&Options::default());
    let server = server(&broker);
    let mut subscriber = Process::start(&mut example("subscribe", &[&server, "some/#"]), "cargo");
    subscriber.expect_line("that it is subscribed", |line| {
        (line == "subscribed to some/# with AtLeastOnce").then_some(())
    });
    let published = run("publish", &[&server, "some/topic"], "one\ntwo\nthree\n");
    assert_eq!(
        said(&published),
        (true, "3 messages acknowledged\n".to_owned())
    );
    let mut lines = Vec::new();
    subscriber.expect_line("three messages", |line| {
        lines.extend(line.strip_prefix("some/topic ").map(str::to_owned));
        (lines.len() == 3).then_some(())
    });
    assert_eq!(lines, ["one", "two", "three"]);
}

#[test]
fn query_prints_what_respond_answers_and_why_it_refuses() {
    let broker = Mosquitto::start_now(&Options {
        transcript: true,
        ..Options::default()
    });
    let server = server(&broker);
    let mut responder = Process::start(&mut example("respond", &[&server]), "cargo");
    crate::support::until("the responder has subscribed", || {
        broker
            .transcript()
            .contains("Sending SUBACK to example-respond")
            .then_some(())
    });
    let answer = run("query", &[&server, "math/square", "12"], "");
    assert_eq!(said(&answer), (true, "144\n".to_owned()));
    let refused = said(&run("query", &[&server, "math/square", "twelve"], ""));
    assert!(
        refused.1.starts_with("refused: \"twelve\": invalid digit"),
        "{refused:?}"
    );
    let id = responder.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(
        responder.exit_code(),
        Some(0),
        "it leaves in order when it is interrupted"
    );
}

#[test]
fn tls_connects_or_tells_in_one_line_why_not() {
    let directory = TempDir::new().unwrap();
    let files = TlsFiles {
        require_client: true,
        ..certificates::make(directory.path(), "ours")
    };
    let broker = Mosquitto::start_now(&Options {
        tls: Some(files.clone()),
        ..Options::default()
    });
    let server = server(&broker);
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (ca, certificate, key) = (path("ca.pem"), path("client.pem"), path("client.key"));
    let connected = run("tls", &[&server, &ca, &certificate, &key], "");
    assert_eq!(said(&connected), (true, String::new()));
    let distrustful = said(&run("tls", &[&server], ""));
    assert!(!distrustful.0, "{distrustful:?}");
    assert!(
        distrustful.1.contains("no trusted authority has signed it"),
        "{distrustful:?}"
    );
    assert_eq!(distrustful.1.lines().count(), 1, "{distrustful:?}");
}
