//! `qproxy ca`: an authority for a forward proxy that decrypts.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::args::{CaExport, CaInit};
use super::say;
use crate::app::{NewAuthority, authority_certificate};

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";
const DAY: Duration = Duration::from_hours(24);
/// How long the lines of a PEM file are (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// `qproxy ca init`.
pub(super) fn init(args: &CaInit) -> anyhow::Result<ExitCode> {
    let (certificate, key) = (args.dir.join(CERTIFICATE), args.dir.join(KEY));
    for path in [&certificate, &key] {
        anyhow::ensure!(
            !path.exists(),
            "{} is there already and stays as it is: name another folder with --dir, or move it away",
            path.display()
        );
    }
    let authority = NewAuthority {
        name: args.name.clone().unwrap_or_else(name),
        life: DAY * args.days,
        only_domains: args.only.clone(),
    };
    let pem = authority.create()?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.dir)
        .with_context(|| format!("could not make {}", args.dir.display()))?;
    write_new(&key, 0o600, pem.key.as_bytes())?;
    if let Err(error) = write_new(&certificate, 0o644, pem.certificate.as_bytes()) {
        // A key without its certificate would be in the way of the next try.
        let _ = std::fs::remove_file(&key);
        return Err(error);
    }
    let (certificate, key) = (certificate.display(), key.display());
    say(&format!(
        "\
{certificate}  the certificate of \"{}\", valid for {} days: for every client that is to trust it
{key}  its key, for the node alone: whoever has it can read the traffic of all who trust the certificate

In the node's configuration:
  \"http\": {{ \"forward_proxy\": {{ \"ca\": {{ \"cert\": \"{certificate}\", \"key\": \"{key}\" }} }} }}

Have clients trust it, for as long as you record and no longer:
  curl                       curl --cacert {certificate} --proxy http://127.0.0.1:8080 https://...
  Python (requests, httpx)   REQUESTS_CA_BUNDLE={certificate} SSL_CERT_FILE={certificate}
  Node.js                    NODE_EXTRA_CA_CERTS={certificate}
  Java                       keytool -importcert -alias qproxy -file {certificate} -keystore truststore.p12
  Debian, Ubuntu             cp {certificate} /usr/local/share/ca-certificates/qproxy.crt && update-ca-certificates
  Red Hat, Fedora            cp {certificate} /etc/pki/ca-trust/source/anchors/ && update-ca-trust
  Firefox                    Settings, Certificates, Authorities, Import",
        authority.name, args.days,
    ));
    Ok(ExitCode::SUCCESS)
}

/// `qproxy ca export`.
pub(super) fn export(args: &CaExport) -> anyhow::Result<ExitCode> {
    let path = args.dir.join(CERTIFICATE);
    let der = authority_certificate(&path)
        .with_context(|| format!("{} cannot be handed out", path.display()))?;
    let bytes = if args.der {
        der
    } else {
        pem(&der).into_bytes()
    };
    match &args.out {
        None => std::io::stdout().write_all(&bytes)?,
        Some(out) => File::create(out)
            .and_then(|mut file| file.write_all(&bytes))
            .with_context(|| format!("could not write {}", out.display()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Made anew, so that nothing else that may stand in the file is handed out.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(PEM_LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// Tells this authority from those of other machines.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(40).collect();
    match host.as_str() {
        "" => "QProxy recording".to_owned(),
        host => format!("QProxy recording on {host}"),
    }
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
    let mut open = OpenOptions::new();
    open.write(true).create_new(true).mode(mode);
    let written = open.open(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.with_context(|| format!("could not write {}", path.display()))
}
