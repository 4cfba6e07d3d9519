//! `psql` answered without PostgreSQL: every session begins with the same words and is told another process id, and only its
//! query tells which recorded one it repeats.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use super::{Stage, port_of};
use crate::support::process::Process;
use crate::support::{free_port, until};

/// A PostgreSQL server in a folder of its own, which trusts everyone.
struct Postgres {
    process: Process,
    port: u16,
    _folder: tempfile::TempDir,
}

/// A server program of the newest PostgreSQL that is installed; Debian keeps them out of the path.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let programs = versions
        .map_while(Result::ok)
        .map(|v| v.path().join("bin").join(name));
    let newest = programs.filter(|path| path.exists()).max();
    newest.expect("apt-get install postgresql, or run ./test.sh which does")
}

/// As another user where we are root, whom PostgreSQL does not serve.
fn unprivileged(folder: &Path, name: &str) -> Command {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !root {
        return Command::new(program(name));
    }
    let chown = Command::new("chown")
        .arg("-R")
        .arg("postgres")
        .arg(folder)
        .status();
    assert!(chown.unwrap().success());
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "--",
    ]);
    command.arg(program(name)).current_dir(folder);
    command
}

impl Postgres {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let made = unprivileged(path, "initdb")
            .args([
                "--auth",
                "trust",
                "--username",
                "postgres",
                "--no-sync",
                "-D",
            ])
            .arg(path.join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        let mut command = unprivileged(path, "postgres");
        command
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-F", "-k"])
            .arg(path)
            .arg("-D")
            .arg(path.join("data"));
        let mut process = Process::start(&mut command, "postgresql");
        process.expect_line("that it is ready", |line| {
            line.contains("database system is ready").then_some(())
        });
        Self {
            process,
            port,
            _folder: folder,
        }
    }
}

fn psql(port: &str, query: &str) -> Output {
    let mut command = Command::new("psql");
    command
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            port,
            "-U",
            "postgres",
            "-At",
            "-c",
            query,
        ])
        .env("PGCONNECT_TIMEOUT", "60");
    command.output().expect("psql comes with postgresql-client")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn psql_is_answered_by_the_session_that_had_the_same_query() {
    let stage = Stage::with_playback(&json!({ "tcp": { "port": 0, "service": "db" } }));
    let mut postgres = Postgres::start();
    let mut recorder = stage.recorder("db", postgres.port);
    let live = port_of(recorder.url("tcp"));
    let queries = [
        (
            "select 'tea ' || n from generate_series(1, 3) n",
            "tea 1\ntea 2\ntea 3\n",
        ),
        ("select 6 * 7", "42\n"),
        ("select length(repeat('x', 200000))", "200000\n"),
    ];
    for (query, answer) in queries {
        assert_eq!(said(&psql(&live, query)), answer);
    }
    stage.streams(3);
    recorder.kill();
    postgres.process.kill();

    let answers = port_of(stage.player.url("answer-tcp"));
    for (query, answer) in queries.into_iter().rev() {
        assert_eq!(said(&psql(&answers, query)), answer);
    }
    let other = psql(&answers, "select 'never asked'");
    assert!(!other.status.success(), "{other:?}");
    until("the mismatch is told", || {
        let status = stage.player.status();
        let told = status["ledger"]["tcp_answers"][0]["mismatches"][0].clone();
        let expected = told["expected"].as_str()?;
        assert!(expected.contains("select"), "{told:#}");
        Some(())
    });
}
