//! The main job's script: every kind of request that httpbin answers the same way twice, and how recorded,
//! answered and replayed are held against each other.

use serde_json::{Value, json};

use super::curl::{Answer, curl};
use super::node::Node;
use super::until;

/// Every kind of request that httpbin answers the same way twice: path, and curl's arguments.
pub const REQUESTS: &[(&str, &[&str])] = &[
    ("/", &[]),
    ("/get?b=2&a=1", &[]),
    ("/json", &["--head"]),
    ("/post", &["--data", "name=tea&cups=2"]),
    (
        "/post",
        &[
            "--header",
            "content-type: application/json",
            "--data",
            "{\"a\": [1, 2, 3]}",
        ],
    ),
    ("/put", &["--request", "PUT", "--data", "x"]),
    ("/patch", &["--request", "PATCH", "--data", "x"]),
    ("/delete", &["--request", "DELETE"]),
    ("/anything/with/path?q=%2F", &["--header", "x-seen: yes"]),
    ("/headers", &[]),
    ("/ip", &[]),
    ("/user-agent", &[]),
    ("/status/201", &[]),
    ("/status/204", &[]),
    ("/status/304", &[]),
    ("/status/404", &[]),
    ("/status/418", &[]),
    ("/status/503", &[]),
    ("/gzip", &[]),
    ("/deflate", &[]),
    ("/brotli", &[]),
    ("/encoding/utf8", &[]),
    ("/html", &[]),
    ("/json", &[]),
    ("/xml", &[]),
    ("/robots.txt", &[]),
    ("/deny", &[]),
    ("/cache", &[]),
    ("/cache/60", &[]),
    ("/etag/abc", &["--header", "if-none-match: abc"]),
    ("/response-headers?X-One=1&X-Two=2&X-Two=3", &[]),
    ("/redirect/2", &[]),
    ("/redirect-to?url=%2Fget&status_code=307", &[]),
    ("/absolute-redirect/1", &[]),
    ("/stream/5", &[]),
    ("/stream-bytes/5000?seed=1&chunk_size=100", &[]),
    ("/bytes/70000?seed=7", &[]),
    ("/range/100000?chunk_size=1000", &[]),
    ("/range/1024", &["--range", "10-20"]),
    ("/drip?duration=0.2&numbytes=5&delay=0", &[]),
    ("/delay/0.2", &[]),
    ("/links/5/0", &[]),
    ("/image/png", &[]),
    ("/image/jpeg", &[]),
    ("/image/webp", &[]),
    ("/image/svg", &[]),
    ("/base64/cVByb3h5", &[]),
    ("/cookies", &["--header", "cookie: a=1"]),
    ("/cookies/set?flavour=mint", &[]),
    ("/basic-auth/u/p", &["--user", "u:p"]),
    ("/basic-auth/u/p", &["--user", "u:wrong"]),
    ("/bearer", &["--header", "authorization: Bearer t"]),
    ("/forms/post", &[]),
];

/// What waitress or httpbin makes anew for each response.
const CHANGING: &[&str] = &["date", "last-modified", "qproxy-record"];

fn comparable(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let hop = [
        "connection",
        "transfer-encoding",
        "content-length",
        "keep-alive",
    ];
    let mut headers = answer.headers.clone();
    headers.retain(|(name, _)| !CHANGING.contains(&name.as_str()) && !hop.contains(&name.as_str()));
    headers.sort();
    (answer.status, headers, answer.body.clone())
}

/// Waits until the player has stored `count` records.
pub fn wait_for_records(player: &Node, count: u64) {
    until(&format!("{count} records stored"), || {
        let status = player.status();
        (status["counts"]["records"].as_u64()? >= count).then_some(())
    });
}

pub fn record_all(base: &str) -> Vec<Answer> {
    REQUESTS
        .iter()
        .map(|(path, arguments)| curl(&format!("{base}{path}"), arguments))
        .collect()
}

pub fn assert_answered_as_recorded(recorded: &[Answer], answer_url: &str, host: &str) {
    let host = format!("host: {host}");
    for ((path, arguments), recorded) in REQUESTS.iter().zip(recorded) {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--header", host.as_str()]);
        let answered = curl(&format!("{answer_url}{path}"), &arguments);
        assert_eq!(
            comparable(&answered),
            comparable(recorded),
            "{path} {arguments:?}"
        );
    }
}

pub fn authority(url: &str) -> &str {
    url.split("://").nth(1).unwrap()
}

/// Replays all that `node` has against `target`; gives the finished report.
pub fn replay(node: &Node, target: &str) -> Value {
    // What httpbin tells of the request or makes anew: the marker of a replay, and the present time.
    let request = json!({
        "target": target, "concurrency": 1, "speed": "max", "keep_host": true,
        "ignore_headers": ["last-modified", "etag"],
        "ignore_json": ["/headers/Qproxy-Replay"],
    });
    let request = request.to_string();
    let json = [
        "--header",
        "content-type: application/json",
        "--data",
        request.as_str(),
    ];
    let started = node.api("/api/replays", &json);
    assert_eq!(started.status, 202, "{}", started.text());
    let id = started.json()["id"].as_str().unwrap().to_owned();
    until("the replay ends", || {
        let report = node.api(&format!("/api/replays/{id}"), &[]).json();
        (report["state"] != "running").then_some(report)
    })
}

/// Replays all that `node` has against `target`, and expects every answer to be as recorded.
pub fn assert_replayed_as_recorded(node: &Node, target: &str) {
    let report = replay(node, target);
    assert_eq!(report["totals"]["sent"], REQUESTS.len(), "{report:#}");
    assert_eq!(report["totals"]["failed"], 0, "{report:#}");
    // One endpoint echoes the marker header of the replay on lines of its own, which no pointer reaches.
    let differences = report["differences"].as_array().unwrap();
    let endpoints: Vec<_> = differences
        .iter()
        .map(|d| d["endpoint"].as_str().unwrap())
        .collect();
    assert_eq!(endpoints, ["GET /stream/{id}"], "{report:#}");
    assert_eq!(report["totals"]["same"], REQUESTS.len() - 1, "{report:#}");
}
