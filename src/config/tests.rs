use secrecy::ExposeSecret;

use super::*;

fn read(text: &str) -> Result<Settings, Vec<Problem>> {
    parse(text, Path::new("/etc/qproxy"), |_| None)
}

fn problems(text: &str) -> String {
    read(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

const RECORD: &str = r#""mode": "Record", "http": {"port": 1, "downstream": "http://a"}, "peer": {"host": "b", "port": 2}"#;

#[test]
fn the_users_own_example_is_accepted_as_it_stands() {
    let settings = read(include_str!("../../tests/data/user-guide-config.json")).unwrap();
    assert_eq!(settings.mode, Mode::Record);
    let http = settings.http.as_ref().unwrap();
    assert_eq!(
        (
            http.listen.to_string().as_str(),
            http.downstream[0].as_str()
        ),
        ("127.0.0.1:8080", "http://localhost:8081")
    );
    assert_eq!(settings.tcp[0].downstream, ["localhost:8083"]);
    let tls = settings.tcp[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/qproxy/cert.pem"));
    assert_eq!(
        settings.peer,
        Some(Peer {
            host: "remote-host".into(),
            port: 8084,
            tls: true
        })
    );
    let missing = settings.missing_files();
    assert_eq!(
        (missing[0].key.as_str(), missing.len()),
        ("tcp.tls.tls_cert", 2)
    );
}

#[test]
fn a_playback_node_needs_no_peer_and_then_runs_the_broker() {
    let settings =
        read(r#"{"mode": "Playback", "http": {"host": "0.0.0.0", "port": 8080}}"#).unwrap();
    assert_eq!(settings.broker.unwrap().to_string(), "127.0.0.1:8084");
    assert_eq!(
        settings.playback.answer.unwrap().0.to_string(),
        "0.0.0.0:8080"
    );
    assert!(settings.http.is_none());
}

#[test]
fn standalone_has_all_inside() {
    let settings = read(
        r#"{"mode": "Standalone", "http": {"port": 8080, "downstream": "http://localhost:8081"}}"#,
    )
    .unwrap();
    assert!(settings.broker.is_some() && settings.peer.is_none());
    assert_eq!(settings.playback.answer.unwrap().0.port, 8092);
    assert_eq!(settings.api.listen.port, 8090);
}

#[test]
fn a_mistake_is_named_with_its_key_and_what_was_seen() {
    let cases = [
        (
            r#"{"mode": "Recrod"}"#.to_owned(),
            "mode: unknown variant `Recrod`",
        ),
        (
            format!("{{{RECORD}, \"htpp\": 1}}"),
            "unknown key `htpp`, did you mean `http`?",
        ),
        (
            r#"{"mode": "Record", "http": {"port": "x"}}"#.to_owned(),
            "http.port: invalid type: string \"x\"",
        ),
        (
            r#"{"mode": "Record", "http": {"port": 70000}}"#.to_owned(),
            "http.port: invalid value: integer `70000`",
        ),
        (
            format!("{{{RECORD}, \"tcp\": [{{\"port\": 1, \"downstrem\": []}}]}}"),
            "tcp[0].downstrem: unknown key `downstrem`, did you mean `downstream`?",
        ),
        (
            format!("{{{RECORD}, \"retention\": {{\"max_age\": \"2 moons\"}}}}"),
            "retention.max_age: invalid value: string \"2 moons\"",
        ),
        (
            format!("{{{RECORD}, \"capture\": {{\"sample\": 2}}}}"),
            "capture.sample: 2 must be from 0 to 1",
        ),
        (
            format!("{{{RECORD}, \"node\": \"a/b\"}}"),
            "node: `a/b` must be",
        ),
        (
            format!("{{{RECORD}, \"mqtt\": {{\"protocol\": \"5\"}}}}"),
            "mqtt.protocol: `5` is not spoken",
        ),
        (
            format!("{{{RECORD}, \"mqtt\": {{\"token\": \"t\"}}}}"),
            "mqtt.app_id: is missing",
        ),
        (
            r#"{"mode": "Record", "http": {"port": 1, "downstream": "http://a"}}"#.to_owned(),
            "peer: mode Record needs",
        ),
        (
            r#"{"mode": "Record", "peer": {"host": "b", "port": 2}}"#.to_owned(),
            "http: mode Record needs `http` or `tcp`",
        ),
        (
            r#"{"mode": "Forward", "http": {"port": 1}}"#.to_owned(),
            "http.downstream: is missing",
        ),
        (
            r#"{"mode": "Record" "#.to_owned(),
            "no JSON: EOF while parsing an object at line 1 column 18",
        ),
        (format!("{{{RECORD}}} x"), "no JSON: trailing characters"),
    ];
    for (text, wanted) in cases {
        let said = problems(&text);
        assert!(
            said.contains(wanted),
            "{text}\nsaid:   {said}\nwanted: {wanted}"
        );
    }
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    let said = read(r#"{"mode": "Record", "node": "ö", "http": {"port": 1}}"#).unwrap_err();
    let keys: Vec<&str> = said.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["http.downstream", "peer", "node"]);
}

#[test]
fn secrets_come_from_the_environment_first_and_are_not_printed() {
    let text = format!("{{{RECORD}, \"api\": {{\"token\": \"typed\"}}}}");
    let settings = parse(&text, Path::new(""), |name| {
        (name == "QPROXY_API_TOKEN").then(|| "exported".to_owned())
    });
    let settings = settings.unwrap();
    assert_eq!(
        settings.api.token.as_ref().unwrap().expose_secret(),
        "exported"
    );
    assert!(!format!("{settings:?}").contains("exported"));
}

#[test]
fn tcp_may_be_one_or_many_and_rules_may_be_short() {
    let text = format!(
        "{{{RECORD}, \"tcp\": [{{\"port\": 5, \"downstream\": \"db:1\"}}, {{\"port\": 6, \"downstream\": [\"db:2\"], \"service\": \"db\"}}],
          \"capture\": {{\"exclude\": [{{\"paths\": \"/health\", \"statuses\": [\"5xx\", 404]}}]}}}}"
    );
    let settings = read(&text).unwrap();
    let services: Vec<&str> = settings
        .tcp
        .iter()
        .map(|tcp| tcp.service.as_str())
        .collect();
    assert_eq!(services, ["tcp-5", "db"]);
    assert_eq!(settings.capture.exclude[0].statuses, ["5xx", "404"]);
}
