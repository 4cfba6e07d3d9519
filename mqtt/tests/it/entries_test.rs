//! The fuzz targets' entries over seeded bytes: what a fuzzer would find quickly is found here, without one.

#[path = "../../fuzz/entries.rs"]
mod entries;

use crate::packets::{Random, any_packet, bytes_of, mutate};

const ROUNDS: usize = 20_000;

#[test]
fn decoding_is_stable_for_packets_spoilt_packets_and_noise() {
    let mut random = Random(2);
    for round in 0..ROUNDS {
        let mut data = Vec::new();
        for _ in 0..1 + random.below(3) {
            let mut wire = bytes_of(&any_packet(&mut random));
            if round % 3 == 0 {
                mutate(&mut random, &mut wire);
            }
            data.append(&mut wire);
        }
        if round % 10 == 0 {
            data = (0..random.below(60)).map(|_| random.byte()).collect();
        }
        entries::decode(&data);
    }
}

#[test]
fn matching_follows_its_laws_for_any_text() {
    const PIECES: [&str; 9] = ["a", "b", "/", "+", "#", "$", "é", "😀", "\n"];
    let mut random = Random(3);
    for _ in 0..ROUNDS {
        let text: String = (0..random.below(9))
            .map(|_| PIECES[random.below(PIECES.len())])
            .collect();
        entries::topics(text.as_bytes());
        let noise: Vec<u8> = (0..random.below(9)).map(|_| random.byte()).collect();
        entries::topics(&noise);
    }
}

#[test]
fn a_session_keeps_its_promises_under_any_script() {
    let mut random = Random(4);
    for _ in 0..ROUNDS / 4 {
        let script: Vec<u8> = (0..random.below(400)).map(|_| random.byte()).collect();
        entries::session(&script);
    }
}
