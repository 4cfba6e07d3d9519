//! A server that makes the client answer and does not read the answers.

use bytes::Bytes;
use qproxy::mqtt_client::client::{MqttClient, MqttConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{eventually, soon};

/// PUBREL of ids that nobody knows: each is answered with as many bytes.
fn releases() -> Bytes {
    let release = |id: u16| [0x62, 2, (id >> 8) as u8, id as u8];
    (1..=16_000).flat_map(release).collect()
}

#[tokio::test]
async fn answers_that_a_server_does_not_read_stop_the_reader_and_it_goes_on_when_they_leave() {
    /// Half for the answers that may wait, half for what one read brings.
    const MOST: u64 = 1 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = MqttClient::new(MqttConfig {
        client_id: "tested".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        ..MqttConfig::default()
    });
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut connect = [0; 256];
        let read = stream.read(&mut connect).await.unwrap();
        assert!(read > 0);
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        stream
    };
    let (connected, stream) =
        soon("CONNACK", async { tokio::join!(client.connect(), server) }).await;
    connected.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let writing = tokio::spawn(async move {
        let releases = releases();
        while writer.write_all(&releases).await.is_ok() {}
    });
    eventually("the reader stands still", || async {
        client.stats().answer_pauses > 0
    })
    .await;
    let stats = client.stats();
    let remembered = stats.bytes_in - stats.bytes_out;
    assert!(remembered <= MOST, "{remembered} bytes wait");

    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 1 << 16];
        while reader.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    });
    eventually("the reader goes on", || async {
        client.stats().bytes_in > stats.bytes_in + 8 * MOST
    })
    .await;
    writing.abort();
    reading.abort();
    drop(client);
}
