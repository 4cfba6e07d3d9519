//! What a newcomer does first, word for word: the demo, and the commands that it prints.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::support::curl::curl;
use crate::support::process::Process;
use crate::support::until;

const QPROXY: &str = env!("CARGO_BIN_EXE_qproxy");

fn command(arguments: &[&str]) -> Output {
    Command::new(QPROXY).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_demo_records_answers_when_the_shop_is_closed_and_finds_what_the_next_release_changes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut demo = Command::new(QPROXY);
    demo.args(["demo", "--free-ports", "--data"])
        .arg(&data)
        .current_dir(folder.path());
    let mut demo = Process::start(&mut demo, "nothing: cargo builds it");
    let mut urls = BTreeMap::new();
    let mut said = Vec::new();
    demo.expect_line("`ready`", |line| {
        let mut words = line.split_whitespace();
        if let (Some(label), Some(address)) = (words.next(), words.next()) {
            urls.entry(label.to_owned())
                .or_insert_with(|| address.to_owned());
        }
        said.push(line.to_owned());
        (line == "ready").then_some(())
    });
    assert!(
        said.iter()
            .any(|line| line == "28 requests went through the proxy; 28 records are stored"),
        "{said:#?}"
    );

    let product = curl(&format!("{}/products/3", urls["record"]), &[]);
    assert_eq!(
        (product.status, product.json()["cents"].as_u64()),
        (200, Some(1850))
    );

    demo.stdin().write_all(b"\n").unwrap();
    until("the shop is closed", || {
        (curl(&format!("{}/products/3", urls["record"]), &[]).status == 502).then_some(())
    });
    let answered = curl(&format!("{}/products/3", urls["answer"]), &[]);
    assert_eq!((answered.status, answered.body), (200, product.body));
    let missed = curl(&format!("{}/products/99", urls["answer"]), &[]);
    assert_eq!(missed.status, 404);
    assert!(
        !missed.json()["nearest"].as_array().unwrap().is_empty(),
        "{}",
        missed.text()
    );

    let replay = [
        "replay",
        "--api",
        &urls["api"],
        "--target",
        &urls["next"],
        "--path",
        "/products",
    ];
    let report = command(&[replay.as_slice(), &["--fail-on-difference"]].concat());
    let report_text = text(&report);
    assert_eq!(report.status.code(), Some(3), "{report_text}");
    assert!(report_text.contains("body /cents"), "{report_text}");
    let same = command(
        &[
            replay.as_slice(),
            &["--ignore-json", "/cents", "--ignore-json", "/items/*/cents"],
            &["--fail-on-difference"],
        ]
        .concat(),
    );
    assert_eq!(same.status.code(), Some(0), "{}", text(&same));

    let listed = text(&command(&[
        "records",
        "--api",
        &urls["api"],
        "--method",
        "POST",
    ]));
    assert!(
        listed.contains("/login") && listed.contains("/orders"),
        "{listed}"
    );
    let page = curl(&format!("{}/", urls["api"]), &[]);
    assert_eq!(page.status, 200);
    assert_eq!(demo.terminate(), Some(0));
    assert!(data.join("records").is_dir() && data.join("spool").is_dir());
}

#[test]
fn a_node_that_is_not_there_is_named() {
    let output = command(&["records", "--api", "http://127.0.0.1:1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("no answer from http://127.0.0.1:1/") && said.contains("--api"),
        "{said}"
    );
}

#[test]
fn help_names_every_command() {
    let output = Command::new(QPROXY)
        .arg("--help")
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let help = text(&output);
    for command in [
        "standalone",
        "demo",
        "config",
        "records",
        "show",
        "status",
        "replay",
    ] {
        assert!(help.contains(command), "{help}");
    }
}
