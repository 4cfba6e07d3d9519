//! Requests with an absolute target, and what is let through.

use serde_json::json;

use super::world::{World, records};
use crate::support::curl::curl;

#[test]
fn a_request_reaches_the_host_that_it_names_and_its_record_is_that_of_a_reverse_proxy() {
    let world = World::new();
    let node = world.standalone(json!({ "credentials": "me:secret", "service": "web" }));
    let (proxy, url) = (
        node.url("record"),
        format!("http://localhost:{}/a?b=1", world.http),
    );
    let refused = curl(&url, &["--proxy", proxy]);
    assert_eq!(refused.status, 407);
    let challenge = refused
        .headers
        .iter()
        .find(|(name, _)| name == "proxy-authenticate");
    assert!(
        challenge.unwrap().1.starts_with("Basic realm="),
        "{challenge:?}"
    );
    let wrong = curl(&url, &["--proxy", proxy, "--proxy-user", "me:guess"]);
    assert_eq!(wrong.status, 407);
    let good = curl(
        &url,
        &[
            "--proxy",
            proxy,
            "--proxy-user",
            "me:secret",
            "--data",
            "x=1",
        ],
    );
    assert_eq!(good.text(), "POST localhost /a?b=1 auth= via=");

    let reverse = world.node("reverse", json!({
        "mode": "Standalone", "broker": { "port": 0 }, "playback": { "http": { "port": 0 } },
        "http": { "port": 0, "service": "web", "downstream": format!("http://localhost:{}", world.http) },
    }));
    let host = format!("Host: localhost:{}", world.http);
    let direct = format!("{}/a?b=1", reverse.url("record"));
    assert_eq!(
        curl(&direct, &["--header", &host, "--data", "x=1"]).body,
        good.body
    );
    let [forward, reverse] = [&node, &reverse].map(|node| {
        let mut record = records(node, 1).remove(0);
        // Where its content is has the record's id in it.
        record["request"]["body"]["href"].take();
        record
    });
    for part in ["request", "protocol", "service", "outcome", "upstream"] {
        assert_eq!(forward[part], reverse[part], "{part}");
        assert!(!forward[part].is_null(), "{part} in {forward}");
    }
    assert_eq!(forward["response"]["status"], reverse["response"]["status"]);
    assert!(!forward.to_string().contains("roxy-"), "{forward}");
}

#[test]
fn what_is_not_granted_is_refused_with_the_reason_and_counted() {
    let world = World::new();
    let node = world.node("forward", json!({
        "mode": "Forward",
        "http": { "port": 0, "forward_proxy": { "allowed_hosts": ["localhost", "nowhere.invalid"] } },
    }));
    let proxy = node.url("forward");
    let port = proxy.rsplit(':').next().unwrap();
    let http = world.http;
    for (url, arguments, status, said) in [
        (
            format!("http://127.0.0.1:{http}/"),
            &[][..],
            403,
            "allowed_hosts",
        ),
        ("http://localhost:25/".to_owned(), &[], 403, "allowed_ports"),
        (
            format!("http://localhost:{port}/"),
            &[],
            508,
            "this proxy itself",
        ),
        (
            "http://nowhere.invalid/".to_owned(),
            &[],
            502,
            "nowhere.invalid",
        ),
        (
            format!("http://localhost:{http}/"),
            &["--header", "Host: other"],
            200,
            "GET localhost /",
        ),
    ] {
        let answer = curl(&url, &[&["--proxy", proxy], arguments].concat());
        assert_eq!(answer.status, status, "{url}: {}", answer.text());
        assert!(answer.text().contains(said), "{url}: {}", answer.text());
    }
    let origin_form = curl(&format!("{proxy}/x"), &[]);
    assert_eq!(origin_form.status, 400);
    assert!(
        origin_form.text().contains("forward proxy"),
        "{}",
        origin_form.text()
    );
    let page = node.api("/metrics", &[]).text();
    let denied = "qproxy_proxy_forward_refused_total{reason=\"denied\"} 2";
    assert!(page.contains(denied), "{page}");
}

#[test]
fn one_listener_stands_in_front_of_a_service_and_leads_elsewhere() {
    let world = World::new();
    let node = world.node("both", json!({
        "mode": "Forward",
        "http": { "port": 0, "downstream": format!("http://localhost:{}", world.http), "forward_proxy": {} },
    }));
    let proxy = node.url("forward");
    assert_eq!(
        curl(&format!("{proxy}/own"), &[]).text(),
        "GET 127.0.0.1 /own auth= via="
    );
    let other = format!("http://127.0.7.7:{}/other", world.http);
    assert_eq!(
        curl(&other, &["--proxy", proxy]).text(),
        "GET 127.0.7.7 /other auth= via="
    );
}

#[test]
fn of_two_hundred_hosts_only_so_many_are_kept() {
    let world = World::new();
    let (_, ca) = world.authority();
    let node = world.node("forward", json!({
        "mode": "Forward", "http": { "port": 0, "forward_proxy": { "max_hosts": 50, "ca": ca } },
    }));
    let proxy = node.url("forward");
    let range = format!("http://127.0.9.[1-200]:{}/", world.http);
    let all = std::process::Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "120",
            "--proxy",
            proxy,
            &range,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&all.stdout).into_owned();
    assert_eq!(said.matches("auth=").count(), 200, "{all:?}");
    assert!(node.metric("proxy_destinations_forgotten_total") >= 150.0);
    // The hosts' own certificates are for other names; what counts here are those made for the client.
    let range = format!("https://127.0.9.[1-200]:{}/", world.http);
    let all = std::process::Command::new("curl")
        .args([
            "--silent",
            "--insecure",
            "--max-time",
            "120",
            "--proxy",
            proxy,
            &range,
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&all.stdout).into_owned();
    assert_eq!(said.matches("\"failure\":\"tls\"").count(), 200, "{said}");
    assert!((node.metric("proxy_certificates_minted_total") - 200.0).abs() < 0.5);
    assert!((node.metric("proxy_certificates_forgotten_total") - 150.0).abs() < 0.5);
}
