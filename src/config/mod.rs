//! The configuration: what is typed in `config.json` and the environment, and what the program makes of it.
//!
//! Two types, not one: [`File`] has the shape of the JSON, where most is optional; [`Settings`] has every
//! value decided. Only [`File::resolve`] leads from one to the other, and it reports everything that is wrong
//! at once, each with the key and the value. This module knows no other: `app` hands the settings on.

mod units;
mod file;
mod settings;
mod transport;
mod resolve;
mod tls;
mod keys;
mod target;
mod files;
mod problem;

use std::path::{Path, PathBuf};

use secrecy::SecretString;

pub use file::File;
pub use problem::{Problem, Problems};
pub use settings::{
    AnswerSettings, AnswerTcpSettings, ApiSettings, Auto, Balance, BodyMatch, CaptureSettings,
    ClientAuth, Compression, Delay, Endpoint, ForwardProxySettings, Forwarded, HttpSettings,
    IgnoreSetting, KeySettings, KeySource, ListenerTls, MatchSettings, Miss, Mode, MqttSettings,
    MqttVersion, Peer, PlaybackSettings, RedisOptions, Repeat, RetentionSettings, RouteSettings,
    Rule, Settings, SpoolSettings, StoreSettings, TcpSettings, TlsFiles, UpstreamTls,
};
pub use transport::WaySettings;

/// The file that is read where nothing else is said.
pub const DEFAULT_PATH: &str = "config.json";

/// What the environment says; it wins over the file, so that secrets need not stand in it.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `CONFIG_PATH`: the file.
    pub path: Option<PathBuf>,
    /// `QPROXY_API_TOKEN`: for `api.token`.
    pub api_token: Option<SecretString>,
    /// `QPROXY_MQTT_APP_ID`: for `mqtt.app_id`.
    pub mqtt_app_id: Option<String>,
    /// `QPROXY_MQTT_TOKEN`: for `mqtt.token`.
    pub mqtt_token: Option<SecretString>,
    /// `QPROXY_PROXY_CREDENTIALS`: for `http.forward_proxy.credentials`.
    pub proxy_credentials: Option<SecretString>,
    /// `QPROXY_REDIS_URL`: for `store.redis`.
    pub redis_url: Option<SecretString>,
}

impl Environment {
    /// Reads this process's environment; an empty variable counts as unset.
    #[must_use]
    pub fn of_process() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads an environment that `variable` knows.
    #[must_use]
    pub fn from_lookup(variable: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name| variable(name).filter(|value| !value.is_empty());
        let secret = |name| text(name).map(SecretString::from);
        Self {
            path: text("CONFIG_PATH").map(PathBuf::from),
            api_token: secret("QPROXY_API_TOKEN"),
            mqtt_app_id: text("QPROXY_MQTT_APP_ID"),
            mqtt_token: secret("QPROXY_MQTT_TOKEN"),
            proxy_credentials: secret("QPROXY_PROXY_CREDENTIALS"),
            redis_url: secret("QPROXY_REDIS_URL"),
        }
    }

    /// The file to read: `CONFIG_PATH`, or `config.json` in the working directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// Reads and resolves a file; does not look at the files that it names.
///
/// # Errors
/// [`Problems`] with everything that is wrong.
pub fn load(path: &Path, environment: &Environment) -> Result<Settings, Problems> {
    let text = std::fs::read_to_string(path).map_err(|error| Problems::unreadable(path, &error))?;
    parse(&text, environment).map_err(|problems| problems.in_file(path))
}

/// Resolves the text of a file; see [`load`].
///
/// # Errors
/// [`Problems`] with everything that is wrong.
pub fn parse(text: &str, environment: &Environment) -> Result<Settings, Problems> {
    File::parse(text)?.resolve(environment)
}

/// Reads and resolves a file, and looks at the files that it names as well.
///
/// # Errors
/// [`Problems`] with everything that is wrong.
pub fn usable(path: &Path, environment: &Environment) -> Result<Settings, Problems> {
    let settings = load(path, environment)?;
    let problems = files::problems(&settings);
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(Problems::new(problems).in_file(path))
    }
}

/// Says in one line that a file is good, or what is wrong where; see [`usable`].
///
/// # Errors
/// [`Problems`] with everything that is wrong.
pub fn check(path: &Path, environment: &Environment) -> Result<String, Problems> {
    let settings = usable(path, environment)?;
    Ok(format!("{}: good: {settings}", path.display()))
}
