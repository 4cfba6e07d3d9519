//! What httpbin answers through the proxy is what it answers directly: every route, every method.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::json;

use crate::support::curl::{Answer, curl};
use crate::support::httpbin::{Httpbin, python, require};
use crate::support::httpbin_requests::REQUESTS;
use crate::support::node::Node;

/// What is not in [`REQUESTS`], because it changes, takes two requests, or is another way to the same.
const MORE: &[(&str, &[&str])] = &[
    (
        "/anything",
        &[
            "--header",
            "content-type: multipart/form-data; boundary=b",
            "--data-binary",
            "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--b--\r\n",
        ],
    ),
    (
        "/cookies/delete?flavour",
        &["--header", "cookie: flavour=mint"],
    ),
    ("/cookies/set/flavour/mint", &[]),
    ("/digest-auth/auth/u/p", &["--digest", "--user", "u:p"]),
    ("/digest-auth/auth/u/p/MD5", &["--digest", "--user", "u:p"]),
    (
        "/digest-auth/auth/u/p/SHA-256",
        &["--digest", "--user", "u:p"],
    ),
    (
        "/digest-auth/auth/u/p/MD5/never",
        &["--digest", "--user", "u:p"],
    ),
    ("/hidden-basic-auth/u/p", &["--user", "u:p"]),
    ("/hidden-basic-auth/u/p", &[]),
    ("/image", &["--header", "accept: image/webp"]),
    ("/image", &["--header", "accept: text/plain"]),
    ("/links/3", &[]),
    ("/relative-redirect/2", &[]),
    ("/response-headers?X-One=1", &["--request", "POST"]),
    ("/static/no-such-file", &[]),
    ("/status/100,", &[]),
    ("/no-such-route", &[]),
    ("/uuid", &[]),
    ("/get", &["--request", "POST"]),
    ("/get?empty&a=%20%2f&a=+;b", &["--header", "x-empty;"]),
    ("/anything/a//b/../c/%2e%2e/%C3%A9", &["--path-as-is"]),
];

/// Those that take every method.
const ALL_METHODS: &[&str] = &[
    "/anything",
    "/anything/a/b",
    "/delay/0",
    "/redirect-to?url=%2Fget",
    "/status/202",
];

/// What is made anew for each response, and what only concerns one connection.
const CHANGING: &[&str] = &["date", "last-modified", "connection", "keep-alive"];

/// A request as it is told apart: method, path with query, curl's arguments.
type Ask = (String, String, Vec<String>);

fn asked() -> Vec<Ask> {
    let mut all = Vec::new();
    let mut add = |method: &str, path: &str, arguments: &[&str]| {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        all.push((method.to_owned(), path.to_owned(), arguments));
    };
    for (path, arguments) in REQUESTS.iter().chain(MORE) {
        let explicit = arguments.iter().skip_while(|one| **one != "--request");
        let sends = |flag| arguments.contains(&flag);
        let method = match explicit.clone().nth(1) {
            Some(method) => method,
            None if sends("--data") || sends("--data-binary") => "POST",
            None if sends("--head") => "HEAD",
            None => "GET",
        };
        add(method, path, arguments);
        if method == "GET" && arguments.is_empty() {
            add("HEAD", path, &["--head"]);
            add("OPTIONS", path, &["--request", "OPTIONS"]);
        }
    }
    for path in ALL_METHODS {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"] {
            add(method, path, &["--request", method]);
        }
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            add(
                method,
                path,
                &["--request", method, "--data-binary", "a\r\nb"],
            );
        }
    }
    all
}

/// Every route of httpbin, with its methods.
fn routes() -> Vec<(String, String)> {
    require("httpbin");
    let script = "from httpbin import app\n\
        for r in app.url_map.iter_rules(): [print(m, r.rule) for m in r.methods]";
    let output = Command::new(python())
        .args(["-c", script])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let route = |line: &str| {
        let (method, rule) = line.split_once(' ').unwrap();
        (method.to_owned(), rule.to_owned())
    };
    text.lines().map(route).collect()
}

/// Whether a path is of a route such as `/redirect/<int:n>`.
fn fits(rule: &str, path: &str) -> bool {
    let (rule, path) = (rule.split('/'), path.split('?').next().unwrap());
    let (rule, path): (Vec<_>, Vec<_>) = (rule.collect(), path.split('/').collect());
    let open = rule.last().is_some_and(|last| last.starts_with("<path:"));
    let matches = |(rule, path): (&&str, &&str)| rule.starts_with('<') || rule == path;
    (rule.len() == path.len() || open && path.len() > rule.len())
        && rule.iter().zip(&path).all(matches)
}

fn comparable(
    method: &str,
    path: &str,
    mut answer: Answer,
) -> (u16, Vec<(String, String)>, Vec<u8>) {
    answer
        .headers
        .retain(|(name, _)| !CHANGING.contains(&name.as_str()));
    if method == "HEAD" {
        // Concerns one connection, and there is nothing that it frames (RFC 9112 section 6.1).
        answer
            .headers
            .retain(|(name, _)| name != "transfer-encoding");
    }
    if path == "/cache" {
        answer.headers.retain(|(name, _)| name != "etag");
    }
    if path == "/uuid" {
        let shape = |byte: &mut u8| {
            if byte.is_ascii_hexdigit() {
                *byte = b'0';
            }
        };
        answer.body.iter_mut().for_each(shape);
    }
    // Fields of one name keep their order, which is all that an order means (RFC 9110 section 5.3).
    answer
        .headers
        .sort_by(|(one, _), (other, _)| one.cmp(other));
    (answer.status, answer.headers, answer.body)
}

#[test]
fn every_answer_of_httpbin_is_the_same_through_the_proxy_as_directly() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Httpbin::start(0);
    let node = Node::start(
        folder.path(),
        &json!({
            "mode": "Forward", "node": "between", "api": { "host": "127.0.0.1", "port": 0 },
            "http": { "host": "127.0.0.1", "port": 0, "downstream": origin.url() },
        }),
    );
    let asked = asked();
    let untried: BTreeSet<_> = routes()
        .into_iter()
        .filter(|(method, rule)| {
            let tried = |(m, path, _): &Ask| m == method && fits(rule, path);
            !["HEAD", "OPTIONS"].contains(&method.as_str()) && !asked.iter().any(tried)
        })
        .collect();
    assert!(untried.is_empty(), "{untried:?}");
    let mut differing = Vec::new();
    for (method, path, arguments) in &asked {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.extend(["--header", "host: shop.test"]);
        let [direct, through] = [&origin.url()[..], node.url("forward")]
            .map(|base| comparable(method, path, curl(&format!("{base}{path}"), &arguments)));
        if through != direct {
            differing.push(format!(
                "{method} {path} {arguments:?}\n through {through:?}\n direct  {direct:?}\n"
            ));
        }
    }
    assert!(differing.is_empty(), "{}", differing.concat());
}
