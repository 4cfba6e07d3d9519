//! Our decoder held against the independent one of `oracle`: in both versions they have to say the same of every
//! packet, generated or spoilt. `MQTT_DIFFERENTIAL_PACKETS` sets how many are tried of each version.

use bytes::BytesMut;
use qproxy_mqtt::codec::{DecodeError, Version, decode, encode};

use crate::oracle::{Verdict, judge, packet_v5};
use crate::packets::{Random, any_packet, bytes_of, mutate};

/// Packets of each version in a normal run.
const PACKETS: u64 = 500_000;

fn packets() -> u64 {
    match std::env::var("MQTT_DIFFERENTIAL_PACKETS") {
        Ok(count) => count.parse().expect("a number of packets"),
        Err(_) => PACKETS,
    }
}

/// Panics where the two do not say the same; whether it was a legal packet.
fn compare(wire: &[u8], version: Version) -> bool {
    let mut buf = BytesMut::from(wire);
    let ours = decode(&mut buf, usize::MAX, version);
    let oracle = judge(wire, version.level());
    let same = match (&ours, oracle) {
        (Ok(Some(_)), Verdict::Legal(length)) => wire.len() - buf.len() == length,
        (Ok(None), Verdict::Incomplete) | (Err(_), Verdict::Illegal) => true,
        // A length that its packet cannot have is refused before the bytes are there.
        (Err(DecodeError::Length { .. }), Verdict::Incomplete) => true,
        _ => false,
    };
    assert!(same, "we: {ours:?}; oracle: {oracle:?}; {wire:02x?}");
    if let Ok(Some(packet)) = ours {
        let mut again = BytesMut::new();
        encode(&packet, version, &mut again).unwrap();
        assert_eq!(judge(&again, version.level()), Verdict::Legal(again.len()));
        assert_eq!(decode(&mut again, usize::MAX, version), Ok(Some(packet)));
        return true;
    }
    false
}

fn run(version: Version, mut packet: impl FnMut(&mut Random) -> Vec<u8>) {
    let mut random = Random(5);
    let (mut legal, mut spoilt) = (0, 0);
    for number in 0..packets() {
        let mut wire = packet(&mut random);
        // One in ten stays as it is, and has to be taken.
        if number % 10 == 0 {
            assert!(compare(&wire, version), "{wire:02x?}");
            continue;
        }
        mutate(&mut random, &mut wire);
        match compare(&wire, version) {
            true => legal += 1,
            false => spoilt += 1,
        }
    }
    // Both kinds have to be there in numbers, or the comparison says little.
    assert!(legal > 0 && spoilt > 0, "{legal} legal, {spoilt} spoilt");
}

#[test]
fn in_3_1_1_an_independent_decoder_says_the_same_of_every_packet() {
    run(Version::V311, |random| bytes_of(&any_packet(random)));
}

#[test]
fn in_5_0_an_independent_decoder_says_the_same_of_every_packet() {
    run(Version::V5, packet_v5);
}
