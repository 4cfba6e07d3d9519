//! PostgreSQL and MariaDB servers of our own: each on a free port, with its data in a temporary directory, stopped when
//! dropped. Both have a database `shop` and a user `ada` with the password `hunter2`.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;
use super::{free_port, until};

pub const PASSWORD: &str = "hunter2";

pub struct Database {
    pub port: u16,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Database {
    /// A PostgreSQL server that asks for the password (SCRAM).
    pub fn postgresql() -> Self {
        let (folder, port) = (open_folder(), free_port());
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let secret = folder.path().join("password");
        std::fs::write(&secret, PASSWORD).unwrap();
        // It refuses to run as root.
        if is_root() {
            run(Command::new("chown")
                .arg("-R")
                .arg("postgres")
                .arg(folder.path()));
        }
        let program = |name: &str| {
            let path = postgresql_program(name);
            let mut command = if is_root() {
                let mut other = Command::new("setpriv");
                other.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
                other.arg(path);
                other
            } else {
                Command::new(path)
            };
            command.current_dir(folder.path());
            command
        };
        let mut init = program("initdb");
        init.args(["--no-sync", "--username=ada", "--auth=scram-sha-256"]);
        init.arg("--pwfile").arg(&secret).arg("-D").arg(&data);
        run(&mut init);
        let mut server = program("postgres");
        server.arg("-D").arg(&data).args(["-F", "-h", "127.0.0.1"]);
        server
            .args(["-p", &port.to_string()])
            .arg("-k")
            .arg(folder.path());
        let mut process = Process::start(&mut server, "postgresql");
        process.expect_line("that it is ready", |line| {
            line.contains("ready to accept connections").then_some(())
        });
        let server = Self {
            port,
            _process: process,
            _folder: folder,
        };
        let mut create = psql(port, "postgres");
        run(create.args(["--command", "CREATE DATABASE shop"]));
        server
    }

    /// A MariaDB server.
    pub fn mariadb() -> Self {
        let (folder, port) = (open_folder(), free_port());
        let data = folder.path().join("data");
        let start = folder.path().join("start.sql");
        let statements = format!(
            "CREATE DATABASE shop;\nCREATE USER 'ada'@'%' IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON *.* TO 'ada'@'%' WITH GRANT OPTION;\n"
        );
        std::fs::write(&start, statements).unwrap();
        let mut init = Command::new("mariadb-install-db");
        init.args(["--no-defaults", "--skip-test-db"]);
        init.arg("--auth-root-authentication-method=normal");
        init.arg(format!("--datadir={}", data.display()));
        let mut server = Command::new("/usr/sbin/mariadbd");
        server.args([
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
        ]);
        server.arg(format!("--datadir={}", data.display()));
        server.arg(format!("--init-file={}", start.display()));
        server.arg(format!("--port={port}"));
        server.arg(format!(
            "--socket={}",
            folder.path().join("socket").display()
        ));
        server.arg(format!(
            "--pid-file={}",
            folder.path().join("pid").display()
        ));
        server.args([
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
        ]);
        if is_root() {
            init.arg("--user=root");
            server.arg("--user=root");
        }
        run(&mut init);
        let process = Process::start(&mut server, "mariadb-server");
        until("MariaDB listens", || {
            TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }
}

/// `psql` as ada, on a port of this machine.
pub fn psql(port: u16, database: &str) -> Command {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
    command.args(["-h", "127.0.0.1", "-U", "ada", "-p", &port.to_string()]);
    command.args(["-d", database]).env("PGPASSWORD", PASSWORD);
    command
}

/// A program of PostgreSQL's that Debian does not put into the path.
pub fn postgresql_program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let paths = versions
        .flatten()
        .map(|version| version.path().join("bin").join(name));
    let newest = paths.filter(|path| path.exists()).max();
    newest.unwrap_or_else(|| panic!("no {name}: install postgresql, or run ./test.sh which does"))
}

/// A folder into which a server that runs as somebody else may go.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    folder
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(Path::new("/proc/self")).unwrap().uid() == 0
}

fn run(command: &mut Command) {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}
