//! What a start would refuse because of what is configured, told without starting.
//!
//! It goes through what the start goes through, in the same order and with the same words, but binds no socket, opens no
//! store and asks no other machine: a port that is taken is not its matter.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::error::Error;
use super::player::{self, StoreConfig};
use super::{bus, keys, limits, recorder};
use crate::config::Settings;
use crate::proxy::{http, tcp};
use crate::record::Keyring;
use crate::service_discovery;
use crate::store::redis::OpenError;

/// Where a listener would be: names are not looked up.
const SOMEWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Looks whether a node could start with these settings.
///
/// # Errors
/// The first [`Error`] that the start would give, with the key of the configuration.
pub fn check(settings: &Settings) -> Result<(), Error> {
    let (node, _) = super::names(settings)?;
    let keys = keys::read(&settings.encryption)?;
    if settings.mode.records() {
        limits::capture(node, settings, &keys)?.check()?;
    }
    proxies(settings)?;
    if settings.mode.plays() {
        playback(settings, &keys)?;
    }
    let broker = settings.broker.as_ref();
    if let Some(files) = broker.and_then(|broker| broker.tls.as_ref()) {
        bus::broker_tls(files).check()?;
    }
    bus::endpoint(settings, None)?;
    Ok(())
}

fn proxies(settings: &Settings) -> Result<(), Error> {
    let metrics = service_discovery::Metrics::default();
    if let Some(proxy) = &settings.http {
        let (limits, pool) = recorder::http_config(proxy, SOMEWHERE, &metrics)?;
        http::check(&limits, pool).map_err(|error| Error::proxy("http", error))?;
    }
    for (at, proxy) in settings.tcp.iter().enumerate() {
        let key = recorder::tcp_key(settings, at);
        let pool = limits::pool(&key, &proxy.downstream, proxy.balance, &metrics)?;
        let checked = tcp::check(&limits::tcp(proxy, SOMEWHERE), pool);
        checked.map_err(|error| Error::proxy(key, error))?;
    }
    Ok(())
}

fn playback(settings: &Settings, keys: &Arc<Keyring>) -> Result<(), Error> {
    if let StoreConfig::Redis(limits) = StoreConfig::new(settings, keys)? {
        limits.check().map_err(OpenError::Config)?;
    }
    if let Some(live) = player::live_config(settings)? {
        live.check(&limits::replay(&settings.playback))?;
    }
    let answer = settings.playback.answer.as_ref();
    if answer.is_some() {
        limits::answerer(settings)?.check()?;
    }
    let talkers = || settings.playback.tcp.iter().enumerate();
    for (at, talker) in talkers() {
        limits::talker(&player::tcp_key(settings, at), talker, settings)?;
    }
    if let Some(answer) = answer {
        let checked = http::check_responder(&limits::answering(SOMEWHERE, answer));
        checked.map_err(|error| Error::proxy(player::answer_key(settings), error))?;
    }
    for (at, talker) in talkers() {
        let checked = tcp::check_talker(&limits::talking(talker, SOMEWHERE));
        checked.map_err(|error| Error::proxy(player::tcp_key(settings, at), error))?;
    }
    Ok(())
}
