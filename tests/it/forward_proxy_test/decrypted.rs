//! Tunnels that are decrypted, and those that are not although they could be.

use std::process::{Command, Stdio};

use serde_json::json;

use super::world::{World, path_text, records};
use crate::support::curl::{curl, try_curl};
use crate::support::until;

#[test]
fn what_is_in_a_tunnel_is_recorded_as_if_the_proxy_were_the_host() {
    let world = World::new();
    let (certificate, ca) = world.authority();
    let node = world.standalone(json!({ "ca": ca }));
    let through = ["--proxy", node.url("record"), "--cacert", &certificate];
    let https = format!("https://localhost:{}", world.https);
    for (mode, path) in [("--http1.1", "/one"), ("--http2", "/two")] {
        let url = format!("{https}{path}?q=1");
        let answer = curl(&url, &[&through[..], &[mode, "--data", "secret"]].concat());
        assert_eq!(
            answer.text(),
            format!("POST localhost {path}?q=1 auth= via="),
            "{mode}"
        );
    }
    let plain = format!("http://localhost:{}/three", world.http);
    let answer = curl(&plain, &[&through[..], &["--proxytunnel"]].concat());
    assert_eq!(answer.text(), "GET localhost /three auth= via=");
    let all = records(&node, 3);
    for (record, (protocol, target, port)) in all.iter().zip([
        ("http", "/one?q=1", world.https),
        ("h2", "/two?q=1", world.https),
        ("http", "/three", world.http),
    ]) {
        assert_eq!(record["protocol"], protocol, "{record}");
        assert_eq!(record["service"], "localhost", "{record}");
        assert_eq!(record["request"]["target"], target, "{record}");
        let (scheme, secure) = if port == world.http {
            ("http", false)
        } else {
            ("https", true)
        };
        assert_eq!(
            record["upstream"],
            format!("{scheme}://localhost:{port}"),
            "{record}"
        );
        assert_eq!(record["tls"].is_object(), secure, "{record}");
        assert!(
            record.to_string().contains(&format!("localhost:{port}")),
            "{record}"
        );
    }
}

#[test]
fn a_certificate_is_for_the_host_short_lived_and_signed_by_the_authority() {
    let world = World::new();
    let (certificate, ca) = world.authority();
    let node = world.standalone(json!({ "ca": ca }));
    let proxy = node.url("record").trim_start_matches("http://");
    let shown = Command::new("openssl")
        .args([
            "s_client",
            "-proxy",
            proxy,
            "-connect",
            &format!("localhost:{}", world.https),
        ])
        .args([
            "-servername",
            "shop.test",
            "-CAfile",
            &certificate,
            "-verify_hostname",
            "shop.test",
        ])
        .args(["-x509_strict", "-verify_return_error"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(said.contains("Verify return code: 0 (ok)"), "{shown:?}");
    assert!(
        said.contains("id-ecPublicKey") || said.contains("ECDSA"),
        "{said}"
    );
}

#[test]
fn an_origin_that_is_not_trusted_is_a_502_that_says_so() {
    let world = World::new();
    let (certificate, ca) = world.authority();
    let node = world.standalone(json!({ "ca": ca }));
    let url = format!("https://localhost:{}/", world.untrusted);
    let answer = curl(
        &url,
        &["--proxy", node.url("record"), "--cacert", &certificate],
    );
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["failure"], "tls");
    assert!(answer.text().contains("certificate"), "{}", answer.text());
    assert_eq!(records(&node, 1)[0]["outcome"]["kind"], "upstream_failed");
}

#[test]
fn a_host_that_is_passed_through_shows_its_own_certificate() {
    let world = World::new();
    let (certificate, ca) = world.authority();
    let node = world.standalone(json!({ "ca": ca, "passthrough_hosts": ["localhost"] }));
    let url = format!("https://localhost:{}/own", world.https);
    let through = ["--proxy", node.url("record"), "--cacert"];
    let own = path_text(&world.origin.ca);
    assert_eq!(curl(&url, &[&through[..], &[own]].concat()).status, 200);
    assert!(try_curl(&url, &[&through[..], &[&certificate]].concat()).is_err());
    for record in records(&node, 2) {
        assert_eq!(record["protocol"], "tcp", "{record}");
    }
    assert!((node.metric("proxy_tunnels_passed_through_total") - 2.0).abs() < 0.5);
    // By the name under TLS, too, where the tunnel is to an address.
    let address = format!("https://localhost:{}/own", world.https);
    let resolve = format!("localhost:{0}:127.0.0.1:{0}", world.https);
    let answer = curl(
        &address,
        &[&through[..], &[own, "--connect-to", &resolve]].concat(),
    );
    assert_eq!(answer.status, 200);
}

#[test]
fn a_client_that_trusts_only_the_hosts_own_certificate_is_named_and_let_through_where_wanted() {
    let world = World::new();
    let (_, ca) = world.authority();
    let own = path_text(&world.origin.ca).to_owned();
    let url = format!("https://localhost:{}/", world.https);
    let mut told = world.node(
        "told",
        json!({
            "mode": "Forward",
            "http": { "port": 0, "upstream_ca": world.origin.ca, "forward_proxy": { "ca": ca } },
        }),
    );
    for _ in 0..2 {
        assert!(try_curl(&url, &["--proxy", told.url("forward"), "--cacert", &own]).is_err());
    }
    told.process().expect_line("what to do", |line| {
        (line.contains("passthrough_hosts") && line.contains("localhost")).then_some(())
    });
    let remembers = world.node(
        "remembers",
        json!({
            "mode": "Forward",
            "http": { "port": 0, "forward_proxy": { "ca": ca, "pass_through_refused": true } },
        }),
    );
    let ask = || {
        try_curl(
            &url,
            &["--proxy", remembers.url("forward"), "--cacert", &own],
        )
    };
    assert!(ask().is_err());
    // curl may be gone before its alert is read.
    until("the host passes through", || ask().ok());
    assert!(remembers.metric("proxy_certificates_refused_total") >= 1.0);
}

#[test]
fn a_websocket_in_a_tunnel_is_carried_and_its_handshake_recorded() {
    let world = World::new();
    let (certificate, ca) = world.authority();
    let node = world.standalone(json!({ "ca": ca }));
    let script = "
import asyncio, sys
async def upgrade(reader, writer):
    await reader.readuntil(b'\\r\\n\\r\\n')
    writer.write(b'HTTP/1.1 101 Switching Protocols\\r\\nConnection: upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n')
    while data := await reader.read(100):
        writer.write(data)
    writer.close()
async def main():
    server = await asyncio.start_server(upgrade, '127.0.0.1', 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
";
    let mut python = Command::new("python3");
    python.args(["-c", script]);
    let mut origin = crate::support::process::Process::start(&mut python, "python3");
    let port: u16 = origin.expect_line("its port", |line| line.parse().ok());
    let url = format!("http://localhost:{port}/chat");
    let output = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "20",
            "--proxytunnel",
            "--proxy",
            node.url("record"),
        ])
        .args([
            "--cacert",
            &certificate,
            "--include",
            "--no-buffer",
            "--http1.1",
        ])
        .args([
            "--header",
            "Connection: Upgrade",
            "--header",
            "Upgrade: websocket",
            &url,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = output;
    let all = records(&node, 1);
    let _ = child.kill();
    let _ = child.wait();
    assert_eq!(all[0]["response"]["status"], 101, "{all:?}");
    assert_eq!(all[0]["request"]["target"], "/chat");
}
