//! Clients that are not ours against a node: curl in its HTTP/2 modes, and h2load.

use std::process::Command;

use serde_json::json;

use crate::support::curl::curl;
use crate::support::httpbin::Httpbin;
use crate::support::node::Node;

/// A node that only passes on, in front of httpbin, with TLS where there are files.
fn forward(folder: &tempfile::TempDir, origin: &Httpbin, tls: bool) -> Node {
    let mut http = json!({ "host": "127.0.0.1", "port": 0, "downstream": origin.url() });
    if tls {
        let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, private) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        std::fs::write(&cert, key.cert.pem()).unwrap();
        std::fs::write(&private, key.signing_key.serialize_pem()).unwrap();
        http["tls"] = json!({ "tls_cert": cert, "tls_key": private });
    }
    let api = json!({ "host": "127.0.0.1", "port": 0 });
    Node::start(
        folder.path(),
        &json!({ "mode": "Forward", "http": http, "api": api }),
    )
}

#[test]
fn curl_speaks_every_http_version_to_one_port() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Httpbin::start(0);
    let node = forward(&folder, &origin, false);
    let url = format!("{}/anything?x=1", node.url("forward"));
    for mode in [
        "--http1.0",
        "--http1.1",
        "--http2",
        "--http2-prior-knowledge",
    ] {
        let answer = curl(&url, &[mode, "--header", "Cookie: a=1; b=2"]);
        assert_eq!(answer.status, 200, "{mode}");
        let json = answer.json();
        assert_eq!(json["args"]["x"], "1", "{mode}");
        assert_eq!(json["headers"]["Cookie"], "a=1; b=2", "{mode}");
    }
    let large = curl(
        &format!("{}/bytes/100000?seed=1", node.url("forward")),
        &["--http2-prior-knowledge"],
    );
    let direct = curl(&format!("{}/bytes/100000?seed=1", origin.url()), &[]);
    assert_eq!(large.body, direct.body);
}

#[test]
fn curl_agrees_on_http2_by_alpn() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Httpbin::start(0);
    let node = forward(&folder, &origin, true);
    let url = format!(
        "{}/anything",
        node.url("forward").replace("127.0.0.1", "localhost")
    );
    let ca = folder.path().join("cert.pem");
    for (mode, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "60",
                mode,
                "--cacert",
            ])
            .arg(&ca)
            .args([
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code} %{http_version}",
            ])
            .arg(&url)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("200 {version}"), "{output:?}");
    }
}

/// 40 requests at once: httpbin's server takes at most 100 connections.
#[test]
fn h2load_finds_no_failed_request() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Httpbin::start(0);
    let node = forward(&folder, &origin, false);
    let output = Command::new("h2load")
        .args(["-n", "600", "-c", "4", "-m", "10"])
        .arg(format!("{}/bytes/2000?seed=1", node.url("forward")))
        .output()
        .unwrap_or_else(|error| panic!("cannot run h2load: {error}. Install nghttp2-client"));
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let done = "600 total, 600 started, 600 done, 600 succeeded, 0 failed, 0 errored, 0 timeout";
    assert!(report.contains(done), "{report}");
}
