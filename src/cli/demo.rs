//! `demo`: a sample shop, a node in front of it, some traffic, and what to try next.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::args::{Api, Demo};
use super::client::Client;
use super::run::{Stop, settings, start_logging};
use super::{say, shopping};
use crate::app::App;
use crate::app::shop::{Edition, Shop};

const SHOP_PORT: u16 = 8081;
const NEXT_SHOP_PORT: u16 = 8083;
/// How long the records of the first traffic may take to be stored.
const STORED_WITHIN: Duration = Duration::from_secs(20);

pub(super) async fn run(args: &Demo) -> anyhow::Result<ExitCode> {
    // The demo's own words should not drown in those of the log.
    start_logging("warn")?;
    let mut stop = Stop::watch()?;
    let port = |port: u16| if args.free_ports { 0 } else { port };
    let shop = open(port(SHOP_PORT), Edition::Current).await?;
    let next = open(port(NEXT_SHOP_PORT), Edition::Next).await?;
    let (shop_at, next_at) = (shop.local_addr()?, next.local_addr()?);
    let (shop_open, next_open) = (CancellationToken::new(), CancellationToken::new());
    let shop_task = tokio::spawn(shop.serve(shop_open.clone()));
    let next_task = tokio::spawn(next.serve(next_open.clone()));

    let typed = json!({
        "mode": "Standalone", "node": "demo",
        "http": { "port": port(8080), "downstream": format!("http://{shop_at}"), "service": "shop" },
        "playback": { "http": { "port": port(8092) } },
        "api": { "port": port(8090) },
        "broker": { "port": port(8084) },
        "store": { "path": args.data },
    });
    let app = App::start(settings(&typed)?).await?;
    for listening in app.listening() {
        say(&listening.to_string());
    }
    say(&format!("{:<8} http://{shop_at}  the sample shop", "shop"));
    say(&format!(
        "{:<8} http://{next_at}  its next release, with a mistake in it",
        "next"
    ));

    let urls = Urls::of(&app)?;
    let sent = shopping::trip(&urls.record)
        .await
        .context("the demo's own traffic failed")?;
    let stored = wait_until_stored(&urls.api, sent).await?;
    say(&format!(
        "\n{sent} requests went through the proxy; {stored} records are stored\n"
    ));
    say(&guide(&urls, next_at));
    say("ready");

    tokio::select! {
        () = stop.asked() => {}
        () = close_shop_on_enter(&shop_open, shop_at) => {}
    }
    shop_open.cancel();
    next_open.cancel();
    let end = async {
        app.shutdown().await;
        let _ = tokio::join!(shop_task, next_task);
    };
    Ok(stop.unless_asked_again(end).await)
}

async fn open(port: u16, edition: Edition) -> anyhow::Result<Shop> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Shop::bind(address, edition).await.with_context(|| {
        format!("the demo's shop could not listen on {address} (--free-ports takes others)")
    })
}

/// Where the demo's node can be reached.
struct Urls {
    record: String,
    answer: String,
    api: String,
}

impl Urls {
    fn of(app: &App) -> anyhow::Result<Self> {
        let url = |label: &str| -> anyhow::Result<String> {
            let found = app
                .listening()
                .iter()
                .find(|listening| listening.label == label);
            Ok(found
                .with_context(|| format!("the node has no {label} listener"))?
                .address
                .clone())
        };
        Ok(Self {
            record: url("record")?,
            answer: url("answer")?,
            api: url("api")?,
        })
    }
}

async fn wait_until_stored(api: &str, wanted: u64) -> anyhow::Result<u64> {
    let token = std::env::var("QPROXY_API_TOKEN").ok();
    let client = Client::new(&Api {
        api: api.to_owned(),
        token,
        json: false,
    })?;
    let stored = async {
        loop {
            let status: Value = client.get("/api/status", &[]).await?;
            let stored = status["counts"]["records"].as_u64().unwrap_or(0);
            if stored >= wanted {
                return anyhow::Ok(stored);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(STORED_WITHIN, stored).await;
    waited.with_context(|| format!("{wanted} records were not stored within {STORED_WITHIN:?}"))?
}

fn guide(urls: &Urls, next: SocketAddr) -> String {
    let Urls {
        record,
        answer,
        api,
    } = urls;
    format!(
        "Look at the records:       open {api}/\n\
         Send something yourself:   curl {record}/products/3\n\
         Ask the records instead:   curl {answer}/products/3\n\
         Stop the shop:             press Enter here; {record} then says 502, {answer} still answers\n\
         Try the next release:      cargo run --release -- replay --api {api} --target http://{next}\n\
         Stop the demo:             Ctrl-C\n"
    )
}

/// Closes the shop at the first line of standard input, so that one can see who answers then; never ends.
async fn close_shop_on_enter(shop: &CancellationToken, address: SocketAddr) {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    if let Ok(Some(_)) = lines.next_line().await {
        shop.cancel();
        say(&format!("the shop at {address} is closed"));
    }
    std::future::pending().await
}

/// What the demo's traffic must find.
pub(super) fn expect(status: hyper::StatusCode, wanted: u16, what: &str) -> anyhow::Result<()> {
    ensure!(status == wanted, "{what} was answered with {status}");
    Ok(())
}
