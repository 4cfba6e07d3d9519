//! `qproxy ca`, and what `config check` says of an authority.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::json;

use super::world::qproxy;

#[test]
fn an_authority_is_made_once_and_its_key_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let made = qproxy(
        here,
        &["ca", "init", "--name", "Tests", "--only", "shop.test"],
    );
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(
        said.contains("ca/ca.pem") && said.contains("REQUESTS_CA_BUNDLE"),
        "{said}"
    );
    let mode = std::fs::metadata(here.join("ca/ca.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(here.join("ca/ca.key")).unwrap();
    let again = qproxy(here, &["ca", "init"]);
    assert!(!again.status.success());
    let why = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        why.contains("is there already") && why.contains("--dir"),
        "{why}"
    );
    assert_eq!(std::fs::read(here.join("ca/ca.key")).unwrap(), before);

    let pem = qproxy(here, &["ca", "export"]);
    assert_eq!(
        pem.stdout,
        std::fs::read(here.join("ca/ca.pem"))
            .unwrap()
            .iter()
            .copied()
            .filter(|b| *b != b'\r')
            .collect::<Vec<_>>()
    );
    assert!(!String::from_utf8_lossy(&pem.stdout).contains("PRIVATE"));
    let der = qproxy(here, &["ca", "export", "--der", "--out", "ca.cer"]);
    assert!(der.status.success(), "{der:?}");
    let read = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-in", "ca.cer", "-noout", "-text"])
        .current_dir(here)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    for part in [
        "CA:TRUE, pathlen:0",
        "CN = Tests",
        "Certificate Sign",
        "DNS:shop.test",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // A key in the place of the certificate is not handed out.
    std::fs::copy(here.join("ca/ca.key"), here.join("ca/ca.pem")).unwrap();
    let refused = qproxy(here, &["ca", "export"]);
    assert!(
        !refused.status.success() && refused.stdout.is_empty(),
        "{refused:?}"
    );
}

#[test]
fn a_check_finds_an_authority_that_cannot_work() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    for dir in ["one", "two"] {
        assert!(qproxy(here, &["ca", "init", "--dir", dir]).status.success());
    }
    let leaf = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(here.join("leaf.pem"), leaf.cert.pem()).unwrap();
    std::fs::write(here.join("leaf.key"), leaf.signing_key.serialize_pem()).unwrap();
    for (cert, key, said) in [
        ("one/ca.pem", "one/ca.key", "good"),
        (
            "one/ca.pem",
            "two/ca.key",
            "not the key of that certificate",
        ),
        (
            "leaf.pem",
            "leaf.key",
            "not the certificate of an authority",
        ),
        ("one/ca.key", "one/ca.key", "forward_proxy.ca.cert"),
        ("one/ca.pem", "none.key", "forward_proxy.ca.key"),
    ] {
        let config = json!({
            "mode": "Forward", "http": { "port": 0, "forward_proxy": { "ca": { "cert": cert, "key": key } } },
        });
        std::fs::write(here.join("config.json"), config.to_string()).unwrap();
        let checked = qproxy(here, &["config", "check", "config.json"]);
        let output = [checked.stdout, checked.stderr].concat();
        let output = String::from_utf8_lossy(&output).into_owned();
        assert!(output.contains(said), "{said}: {output}");
        let code = if said == "good" { 0 } else { 2 };
        assert_eq!(checked.status.code(), Some(code), "{output}");
    }
}
