//! The contract on a single server and on a cluster, and what only Redis does.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Config, InvalidConfig, Keys, OpenError, Redis, Server};
use crate::record::{Coverage, Fingerprint, RecordId, SequenceRange, Side};
use crate::store::contract::{self, Bench, Retention, Source, contract};
use crate::store::{Batch, Error, Metrics, News, Query, Store};

#[path = "../../../tests/it/support/redis.rs"]
mod servers;

use self::servers::{RedisCluster, RedisServer};

fn config(server: Server, retention: Retention) -> Config {
    Config {
        max_age: retention.max_age,
        max_bytes: retention.max_bytes,
        ..Config::new(server)
    }
}

async fn open(config: Config) -> Arc<dyn Store> {
    Arc::new(Redis::open(config, Metrics::default()).await.unwrap())
}

struct Single(RedisServer);

#[async_trait]
impl Bench for Single {
    async fn open(&self, retention: Retention) -> Arc<dyn Store> {
        open(config(Server::single(&self.0.url()).unwrap(), retention)).await
    }

    async fn spoil(&self, id: RecordId, _marker: &str) {
        let key = Keys::new("qproxy", 1).record(id);
        self.0
            .command::<()>(&["SET", &key, "no record", "XX"])
            .await;
    }
}

struct Cluster(RedisCluster);

impl Cluster {
    fn server(&self) -> Server {
        let urls = self.0.urls();
        Server::cluster(urls.iter().map(String::as_str)).unwrap()
    }
}

#[async_trait]
impl Bench for Cluster {
    async fn open(&self, retention: Retention) -> Arc<dyn Store> {
        open(config(self.server(), retention)).await
    }

    async fn spoil(&self, id: RecordId, _marker: &str) {
        let key = Keys::new("qproxy", 16).record(id);
        let config = config(self.server(), Retention::default());
        let door = super::Door::open(config.client().unwrap(), &config).await;
        let mut set = redis::cmd("SET");
        set.arg(key).arg("no record").arg("XX");
        set.exec_async(&mut door.unwrap()).await.unwrap();
    }
}

mod single {
    use super::{RedisServer, Single, contract};

    contract!(async { Single(RedisServer::start(&[]).await) });
}

mod cluster {
    use super::{Cluster, RedisCluster, contract};

    contract!(async { Cluster(RedisCluster::start().await) });
}

/// A store of one record with fingerprint 1, settled up to 1.
fn one(source: &Source) -> (RecordId, Batch) {
    let exchange = source.exchange(1, 0);
    let id = exchange.id;
    let mut batch = contract::batch([contract::exchange(exchange)]);
    batch.arrivals[0].fingerprint = Some(Fingerprint(1));
    contract::settle(&mut batch, vec![source.settled(1, &[])]);
    (id, batch)
}

fn single(server: &RedisServer) -> Config {
    Config::new(Server::single(&server.url()).unwrap())
}

#[tokio::test]
async fn a_full_server_takes_nothing_and_the_same_batch_later() {
    let server = RedisServer::start(&["--maxmemory", "1mb"]).await;
    server
        .command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    let store = open(single(&server)).await;
    let (id, batch) = one(&Source::new());
    server
        .command::<()>(&["CONFIG", "SET", "maxmemory", "1"])
        .await;
    match store.put(batch.clone()).await {
        Err(Error::Full(text)) => assert!(text.contains("OOM"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.get(id).await.unwrap(), None);
    assert_eq!(store.settled().await.unwrap(), []);
    server
        .command::<()>(&["CONFIG", "SET", "maxmemory", "0"])
        .await;
    assert_eq!(store.put(batch).await.unwrap(), contract::receipt(1, 0, 0));
}

#[tokio::test]
async fn a_server_that_left_is_named_and_used_again_when_it_is_back() {
    let mut server = RedisServer::start(&[]).await;
    let url = format!("redis://default:secret@127.0.0.1:{}", server.port());
    server
        .command::<()>(&["CONFIG", "SET", "requirepass", "secret"])
        .await;
    let config = Config::new(Server::single(&url).unwrap());
    let store = open(config.clone()).await;
    let (id, batch) = one(&Source::new());
    store.put(batch.clone()).await.unwrap();
    server.kill();
    match store.put(batch.clone()).await {
        Err(error @ Error::Unavailable { .. }) => {
            let text = format!("{error} {error:?}");
            assert!(
                text.contains(&format!("127.0.0.1:{}", server.port())),
                "{text}"
            );
            assert!(!text.contains("secret"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        Redis::open(config, Metrics::default()).await,
        Err(OpenError::Store(Error::Unavailable { .. }))
    ));
    server.restart().await;
    // The new server knows no password; Redis takes the one it is given for the default user all the same.
    for attempt in 0.. {
        match store.put(batch.clone()).await {
            Ok(_) => break,
            Err(error) => assert!(attempt < 200, "{error:?}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(store.get(id).await.unwrap().is_some());
}

#[tokio::test]
async fn what_an_index_names_and_nobody_has_is_skipped() {
    let server = RedisServer::start(&[]).await;
    let store = open(single(&server)).await;
    let source = Source::new();
    let (evicted, first) = one(&source);
    let (kept, second) = one(&source);
    store.put(first).await.unwrap();
    store.put(second).await.unwrap();
    let keys = Keys::new("qproxy", 1);
    server.command::<()>(&["DEL", &keys.record(evicted)]).await;
    assert_eq!(contract::ids(&*store, &Query::default()).await, [kept]);
    assert_eq!(store.lookup(Fingerprint(1), 1).await.unwrap(), [kept]);
    let left: u64 = server
        .command(&["ZCARD", &keys.fingerprint(Fingerprint(1))])
        .await;
    assert_eq!(left, 1, "the list has let go of it");
}

#[tokio::test]
async fn a_batch_that_broke_off_is_repaired_by_putting_it_again() {
    let server = RedisServer::start(&[]).await;
    let store = open(single(&server)).await;
    let (id, batch) = one(&Source::new());
    store.put(batch.clone()).await.unwrap();
    // As if only the record had come through.
    let record: Vec<u8> = server
        .command(&["DUMP", &Keys::new("qproxy", 1).record(id)])
        .await;
    assert!(!record.is_empty());
    let all: Vec<String> = server.command(&["KEYS", "*"]).await;
    for key in all
        .iter()
        .filter(|key| !key.contains(":r:") && !key.ends_with("shape"))
    {
        server.command::<()>(&["DEL", key]).await;
    }
    assert_eq!(contract::ids(&*store, &Query::default()).await, []);
    assert_eq!(
        store.put(batch.clone()).await.unwrap(),
        contract::receipt(0, 0, 1)
    );
    assert_eq!(contract::ids(&*store, &Query::default()).await, [id]);
    assert_eq!(store.lookup(Fingerprint(1), 9).await.unwrap(), [id]);
    assert_eq!(store.settled().await.unwrap(), batch.settled);
}

/// What one player settled: arrived, dropped, lost, each as ranges.
type Told<'a> = [&'a [(u64, u64)]; 3];

fn news(source: &Source, told: Told<'_>) -> News {
    let life = source.settled(0, &[]);
    let [arrived, dropped, lost] = told.map(|ranges| {
        let mut coverage = Coverage::default();
        for (first, last) in ranges {
            let (first, last) = (*first, *last);
            coverage.observe(SequenceRange { first, last });
        }
        coverage
    });
    News {
        arrived,
        dropped,
        lost,
        ..News::of(life.node, life.epoch)
    }
}

#[tokio::test]
async fn players_of_one_store_add_to_each_others_coverage() {
    let server = RedisServer::start(&[]).await;
    let players = [open(single(&server)).await, open(single(&server)).await];
    let source = Source::new();
    let commits: [(usize, Told<'_>); 6] = [
        (0, [&[(1, 3), (8, 9)], &[], &[]]),
        (1, [&[(6, 6)], &[(4, 5)], &[]]),
        // Both hear of the same drop, and one of them of more of it.
        (0, [&[], &[(4, 5)], &[]]),
        (1, [&[(12, 12)], &[(9, 10)], &[]]),
        (0, [&[(20, 30)], &[], &[(11, 11), (6, 7)]]),
        // As after an answer that was lost: the same again.
        (0, [&[(20, 30)], &[], &[(11, 11), (6, 7)]]),
    ];
    for (player, told) in commits {
        let batch = Batch {
            news: vec![news(&source, told)],
            ..Batch::default()
        };
        players[player].put(batch).await.unwrap();
    }
    for player in &players {
        let settled = player.settled().await.unwrap();
        let above = [SequenceRange {
            first: 20,
            last: 30,
        }];
        // Dropped: 4, 5, 10; lost: 7, 11.
        assert_eq!(settled[0].coverage, Coverage::restore(12, &above, 3, 2));
    }
}

#[tokio::test]
async fn a_redis_that_forgot_without_being_away_is_seen_at_the_next_batch() {
    let server = RedisServer::start(&[]).await;
    let store = open(single(&server)).await;
    let source = Source::new();
    let commit = async |first, last| {
        let batch = Batch {
            news: vec![news(&source, [&[(first, last)], &[], &[]])],
            settled: vec![source.settled(last, &[])],
            ..Batch::default()
        };
        store.put(batch).await.unwrap().behind
    };
    assert!(!commit(1, 5).await);
    assert!(!commit(6, 7).await);
    server.command::<()>(&["FLUSHALL"]).await;
    assert!(commit(8, 9).await);

    // Of a life without its first numbers, too.
    let source = Source::named("az2", 1);
    let above = |first, last| {
        let news = news(&source, [&[(last, last)], &[], &[]]);
        let settled = source.settled(0, &[SequenceRange { first, last }]);
        Batch {
            news: vec![news],
            settled: vec![settled],
            ..Batch::default()
        }
    };
    assert!(!store.put(above(5, 5)).await.unwrap().behind);
    assert!(!store.put(above(5, 6)).await.unwrap().behind);
    server.command::<()>(&["FLUSHALL"]).await;
    assert!(store.put(above(5, 7)).await.unwrap().behind);
}

#[tokio::test]
async fn coverage_of_any_shape_is_added_as_a_model_does() {
    let server = RedisServer::start(&[]).await;
    let store = open(single(&server)).await;
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for epoch in 1..=20 {
        let source = Source::named("az1", epoch);
        let mut model = Coverage::default();
        for _ in 0..20 {
            let first = 1 + random(60);
            let range = (first, first + random(6));
            let (first, last) = range;
            let range_of_model = SequenceRange { first, last };
            let told: Told<'_> = match random(3) {
                0 => {
                    model.observe_dropped(range_of_model);
                    [&[], &[range], &[]]
                }
                1 => {
                    model.observe_lost(range_of_model);
                    [&[], &[], &[range]]
                }
                _ => {
                    model.observe(range_of_model);
                    [&[range], &[], &[]]
                }
            };
            let batch = Batch {
                news: vec![news(&source, told)],
                ..Batch::default()
            };
            store.put(batch).await.unwrap();
        }
        let settled = store.settled().await.unwrap();
        let life = settled.iter().find(|life| life.epoch.0 == epoch).unwrap();
        assert_eq!(life.coverage, model, "epoch {epoch}");
    }
}

#[tokio::test]
async fn coverage_that_cannot_be_read_begins_anew() {
    let server = RedisServer::start(&[]).await;
    let metrics = Metrics::default();
    let store = Redis::open(single(&server), metrics.clone()).await.unwrap();
    let source = Source::named("az1", 1);
    let key = Keys::new("qproxy", 1).coverage();
    let name = "az1 0000000000000001";
    for spoiled in ["nonsense", "\u{5}"] {
        server.command::<()>(&["HSET", &key, name, spoiled]).await;
        assert_eq!(store.settled().await.unwrap(), []);
        let batch = Batch {
            news: vec![news(&source, [&[(3, 4)], &[], &[]])],
            ..Batch::default()
        };
        store.put(batch).await.unwrap();
        let above = [SequenceRange { first: 3, last: 4 }];
        let settled = store.settled().await.unwrap();
        assert_eq!(settled[0].coverage, Coverage::restore(0, &above, 0, 0));
    }
    assert_eq!(metrics.unreadable.get(), 2);
}

#[tokio::test]
async fn keys_expire_by_themselves_and_indexes_last() {
    let server = RedisServer::start(&[]).await;
    let store = open(single(&server)).await;
    let source = Source::new();
    let (id, mut batch) = one(&source);
    let chunk = source.chunk(id, 2, Side::Request, 0);
    batch.arrivals.extend(contract::batch([chunk]).arrivals);
    store.put(batch).await.unwrap();
    let day = 86_400_000;
    let all: Vec<String> = server.command(&["KEYS", "*"]).await;
    assert_eq!(all.len(), 9, "{all:?}");
    for key in all {
        let left: i64 = server.command(&["PTTL", &key]).await;
        let expected = match &key {
            key if key.ends_with("shape") || key.ends_with("coverage") => -1..=-1,
            key if key.contains(":r:") || key.contains(":p:") => day - 60_000..=day,
            _ => day + 3_540_000..=day + 3_600_000,
        };
        assert!(expected.contains(&left), "{key} {left}");
    }
}

#[tokio::test]
async fn retention_leaves_no_key_behind() {
    let server = RedisServer::start(&[]).await;
    server.command::<()>(&["SET", "qproxy:shape", "1 4"]).await;
    let store = open(single(&server)).await;
    let source = Source::new();
    let mut deleted = Vec::new();
    for seq in 1..=600 {
        // Every third has pieces, every fifth is nothing but pieces.
        let (id, mut batch) = one(&source);
        let chunk = source.chunk(id, seq, Side::Request, 0);
        if seq % 5 == 0 {
            batch = contract::batch([chunk]);
        } else if seq % 3 == 0 {
            batch.arrivals.extend(contract::batch([chunk]).arrivals);
        }
        store.put(batch.clone()).await.unwrap();
        if seq % 50 == 1 {
            store.delete(id).await.unwrap();
            // A late duplicate lists what is gone, until it goes for good.
            store.put(batch).await.unwrap();
            deleted.push(Keys::new("qproxy", 4).record(id));
        }
    }
    let day = 86_400_000_000;
    let expired = store.expire(source.now_us + 2 * day).await.unwrap();
    assert_eq!(expired.records, 480 - 12);
    let mut left: Vec<String> = server.command(&["KEYS", "*"]).await;
    left.sort();
    assert_eq!(left, ["qproxy:shape", "qproxy:{0}:coverage"], "{deleted:?}");
}

#[tokio::test]
async fn stores_with_different_prefixes_do_not_meet() {
    let server = RedisServer::start(&[]).await;
    let prefixed = |prefix: &str| Config {
        prefix: prefix.to_owned(),
        ..single(&server)
    };
    let (one_store, other) = (open(prefixed("a")).await, open(prefixed("b:c")).await);
    let (id, batch) = one(&Source::new());
    one_store.put(batch).await.unwrap();
    assert_eq!(contract::ids(&*one_store, &Query::default()).await, [id]);
    assert_eq!(other.stats().await.unwrap().records, 0);
    for bad in ["", "a{b", "a b", &"x".repeat(65)] {
        let opened = Redis::open(prefixed(bad), Metrics::default()).await;
        assert!(
            matches!(opened, Err(OpenError::Config(InvalidConfig::Prefix(_)))),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_store_keeps_the_shards_it_was_made_with() {
    let server = RedisServer::start(&[]).await;
    server.command::<()>(&["SET", "qproxy:shape", "1 4"]).await;
    let store = open(single(&server)).await;
    let source = Source::new();
    let mut expected = Vec::new();
    for _ in 0..20 {
        let (id, batch) = one(&source);
        store.put(batch).await.unwrap();
        expected.push(id);
    }
    let hours: Vec<String> = server.command(&["KEYS", "qproxy:*:hours"]).await;
    assert!((2..=4).contains(&hours.len()), "{hours:?}");
    assert_eq!(store.lookup(Fingerprint(1), 99).await.unwrap(), expected);
    expected.reverse();
    assert_eq!(contract::ids(&*store, &Query::default()).await, expected);
    server.command::<()>(&["SET", "qproxy:shape", "9 4"]).await;
    let opened = Redis::open(single(&server), Metrics::default()).await;
    assert!(matches!(
        opened,
        Err(OpenError::Store(Error::Corrupt { .. }))
    ));
}

#[tokio::test]
async fn one_listing_looks_at_a_bounded_number_of_records() {
    let server = RedisServer::start(&[]).await;
    let config = Config {
        scan_limit: 40,
        ..single(&server)
    };
    let store = open(config).await;
    contract::pages_are_bounded(&*store, 40).await;
}

#[tokio::test]
async fn speaks_tls_as_an_acl_user() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let names = vec!["localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = file("cert.pem", made.cert.pem());
    let key = file("key.pem", made.signing_key.serialize_pem());
    let options = [
        ["--tls-port", "BUS_PORT"],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &certificate],
        ["--tls-auth-clients", "no"],
    ];
    let server = RedisServer::start(&options.concat()).await;
    let acl = [
        "ACL", "SETUSER", "player", "on", ">secret", "~shop:*", "+@all",
    ];
    server.command::<()>(&acl).await;
    let url = |password| format!("rediss://player:{password}@localhost:{}", server.bus_port());
    let config = |password, ca_pem| Config {
        prefix: "shop".to_owned(),
        ca_pem,
        ..Config::new(Server::single(&url(password)).unwrap())
    };
    let authority = Some(made.cert.pem().into_bytes());
    let store = open(config("secret", authority.clone())).await;
    let (id, batch) = one(&Source::new());
    store.put(batch).await.unwrap();
    assert!(store.get(id).await.unwrap().is_some());
    let opened = Redis::open(config("wrong", authority), Metrics::default()).await;
    assert!(
        matches!(opened, Err(OpenError::Refused(Error::Unavailable { .. }))),
        "{opened:?}"
    );
    let opened = Redis::open(config("secret", None), Metrics::default()).await;
    assert!(
        matches!(opened, Err(OpenError::Store(Error::Unavailable { .. }))),
        "{opened:?}"
    );
}
