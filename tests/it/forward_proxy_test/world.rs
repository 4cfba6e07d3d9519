//! nginx as the origins, an authority made by the command, and nodes that trust what they have to.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::certificates::{self, TlsFiles};
use crate::support::node::Node;
use crate::support::process::Process;
use crate::support::{free_port, until};

pub(super) struct World {
    pub(super) folder: TempDir,
    nginx: Process,
    /// Plain HTTP, on every address of this machine.
    pub(super) http: u16,
    /// HTTPS, by a certificate of `origin` for `localhost`.
    pub(super) https: u16,
    /// HTTPS, by an authority that nobody knows.
    pub(super) untrusted: u16,
    pub(super) origin: TlsFiles,
}

/// What every origin answers: who was asked for what, and what of the proxy's business got through.
const ANSWER: &str =
    "$request_method $host $request_uri auth=$http_proxy_authorization via=$http_proxy_connection";

impl World {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let origin = certificates::make(&at("origin"), "the origin's authority");
        let stranger = certificates::make(&at("stranger"), "nobody knows me");
        let [http, https, untrusted] = [free_port(), free_port(), free_port()];
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| {
            let path = at(kind);
            format!("{kind}_temp_path {};", path.display())
        });
        let server = |listen: String, files: Option<&TlsFiles>| {
            let tls = files.map(|files| {
                format!(
                    "ssl_certificate {}; ssl_certificate_key {};",
                    files.certificate.display(),
                    files.key.display()
                )
            });
            let tls = tls.unwrap_or_default();
            format!("server {{ listen {listen}; {tls} location / {{ return 200 \"{ANSWER}\"; }} }}")
        };
        let config = format!(
            "daemon off; pid {0}/nginx.pid; error_log stderr; events {{ }}
             http {{ access_log off; {1} {2} {3} {4} }}",
            folder.path().display(),
            temp.join(" "),
            server(http.to_string(), None),
            server(format!("127.0.0.1:{https} ssl http2"), Some(&origin)),
            server(format!("127.0.0.1:{untrusted} ssl"), Some(&stranger)),
        );
        let path = folder.path().join("nginx.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("nginx");
        command.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        command.args(["-e", "stderr", "-c"]).arg(&path);
        let nginx = Process::start(&mut command, "nginx-light");
        until("nginx listens", || {
            std::net::TcpStream::connect(("127.0.0.1", untrusted)).ok()
        });
        Self {
            folder,
            nginx,
            http,
            https,
            untrusted,
            origin,
        }
    }

    /// The origins are gone for good.
    pub(super) fn stop_origins(&mut self) {
        assert_eq!(self.nginx.terminate(), Some(0));
        until("nginx is gone", || {
            std::net::TcpStream::connect(("127.0.0.1", self.http))
                .is_err()
                .then_some(())
        });
    }

    /// An authority as the command makes it: its certificate, and the `ca` of a configuration.
    pub(super) fn authority(&self) -> (String, Value) {
        let dir = self.folder.path().join("ca");
        if !dir.exists() {
            let made = qproxy(self.folder.path(), &["ca", "init"]);
            assert!(made.status.success(), "{made:?}");
        }
        let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        let ca = json!({ "cert": cert, "key": key });
        (cert.display().to_string(), ca)
    }

    /// A node with everything in it, whose forward proxy is like this.
    pub(super) fn standalone(&self, forward_proxy: Value) -> Node {
        self.node("standalone", json!({
            "mode": "Standalone",
            "http": { "port": 0, "upstream_ca": self.origin.ca, "forward_proxy": forward_proxy },
            "playback": { "http": { "port": 0 } },
            "broker": { "port": 0 },
        }))
    }

    pub(super) fn node(&self, name: &str, mut config: Value) -> Node {
        config["node"] = json!(name);
        config["api"] = json!({ "port": 0 });
        config["store"] = json!({ "path": "data" });
        Node::start(&self.folder.path().join(name), &config)
    }
}

/// The command with these arguments.
pub(super) fn qproxy(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qproxy"));
    command.args(arguments).current_dir(folder);
    command.output().unwrap()
}

/// So many records of a node, the oldest first, each whole.
pub(super) fn records(node: &Node, count: usize) -> Vec<Value> {
    let listed = until("the records are stored", || {
        let page = node.api("/api/records?order=oldest", &[]).json();
        let listed = page["records"].as_array().unwrap().clone();
        (listed.len() >= count).then_some(listed)
    });
    assert_eq!(listed.len(), count, "{listed:?}");
    let whole = |record: &Value| {
        let id = record["id"].as_str().unwrap();
        node.api(&format!("/api/records/{id}"), &[]).json()
    };
    listed.iter().map(whole).collect()
}

/// A file in the folder of a test.
pub(super) fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
