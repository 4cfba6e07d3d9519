//! A real Mosquitto on a free port, in a directory of its own; killed when dropped.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use qproxy::mqtt_client::client::MqttConfig;
use tempfile::TempDir;

use super::certificates::TlsFiles;
use super::until;

#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Keeps sessions over a restart.
    pub(crate) persistence: bool,
    /// The only user and password it lets in.
    pub(crate) user: Option<(&'static str, &'static str)>,
    pub(crate) tls: Option<TlsFiles>,
    /// Keeps any number of messages for a slow subscriber, where it else drops all over 1,000 without a word.
    pub(crate) drops_nothing: bool,
    /// Writes down every packet; see [`Mosquitto::transcript`].
    pub(crate) transcript: bool,
    /// Further lines of its configuration.
    pub(crate) lines: &'static [&'static str],
}

pub(crate) struct Mosquitto {
    port: u16,
    directory: TempDir,
    process: Option<Child>,
}

impl Mosquitto {
    pub(crate) async fn start(options: Options) -> Self {
        Self::start_now(&options)
    }

    /// [`Mosquitto::start`] where there is no runtime.
    pub(crate) fn start_now(options: &Options) -> Self {
        let directory = TempDir::new().unwrap();
        // Free now, and for the moment until Mosquitto binds it.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let settings = settings(directory.path(), port, options);
        std::fs::write(directory.path().join("mosquitto.conf"), settings).unwrap();
        let mut mosquitto = Self {
            port,
            directory,
            process: None,
        };
        mosquitto.launch_now();
        mosquitto
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// `kill -9`: what it had in memory is gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn config(&self, client_id: &str) -> MqttConfig {
        MqttConfig {
            client_id: client_id.to_string(),
            host: "127.0.0.1".to_string(),
            port: self.port,
            ..Default::default()
        }
    }

    /// From its next start on it lets in this user too, where it has users.
    pub(crate) fn let_in(&self, user: &str, password: &str) {
        add_user(&self.directory.path().join("users"), &[], user, password);
    }

    /// What it wrote since it was started last.
    pub(crate) fn transcript(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    /// Stops it in order, so that it saves what it keeps.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let asked = Command::new("kill")
            .arg("-TERM")
            .arg(process.id().to_string())
            .status();
        assert!(asked.unwrap().success());
        process.wait().unwrap();
    }

    /// Starts it again on the same port.
    pub(crate) async fn launch(&mut self) {
        self.launch_now();
    }

    /// [`Mosquitto::launch`] where there is no runtime.
    pub(crate) fn launch_now(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let process = Command::new("mosquitto")
            .arg("-c")
            .arg(self.directory.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        self.process = Some(process.expect(
            "these tests need Mosquitto: apt-get install mosquitto (its programs have to be in PATH)",
        ));
        let port = self.port;
        until("Mosquitto listens", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn add_user(file: &Path, options: &[&str], user: &str, password: &str) {
    let made = Command::new("mosquitto_passwd")
        .arg("-b")
        .args(options)
        .arg(file)
        .args([user, password])
        .status()
        .expect("mosquitto_passwd comes with the package mosquitto");
    assert!(made.success());
}

fn settings(directory: &Path, port: u16, options: &Options) -> String {
    let mut text = format!("listener {port} 127.0.0.1\n");
    if let Some(tls) = &options.tls {
        let (ca, certificate) = (tls.ca.display(), tls.certificate.display());
        write!(
            text,
            "cafile {ca}\ncertfile {certificate}\nkeyfile {}\n",
            tls.key.display()
        )
        .unwrap();
        writeln!(text, "require_certificate {}", tls.require_client).unwrap();
    }
    match options.user {
        None => text.push_str("allow_anonymous true\n"),
        Some((user, password)) => {
            let file = directory.join("users");
            add_user(&file, &["-c"], user, password);
            write!(
                text,
                "allow_anonymous false\npassword_file {}\n",
                file.display()
            )
            .unwrap();
        }
    }
    if options.persistence {
        write!(
            text,
            "persistence true\npersistence_location {}/\n",
            directory.display()
        )
        .unwrap();
    }
    if options.drops_nothing {
        text.push_str("max_queued_messages 0\n");
    }
    if options.transcript {
        text.push_str("log_dest stderr\nlog_type all\n");
    }
    for line in options.lines {
        writeln!(text, "{line}").unwrap();
    }
    // Started by root it would otherwise become a user that cannot write here.
    text.push_str("user root\n");
    text
}
