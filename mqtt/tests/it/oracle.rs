//! Whether bytes are a legal packet, decided a second time: straight from the tables of the two specifications, on
//! plain slices, with nothing taken from the decoder under test. It also makes packets from the same tables.
//!
//! It tells legal from illegal and how long a packet is, no more.

use crate::packets::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Incomplete,
    Legal(usize),
    Illegal,
}

/// Table 2-2 of both versions: the prescribed low four bits, by packet type; PUBLISH has its own rules.
const FLAGS: [Option<u8>; 16] = [
    None,
    Some(0),
    Some(0),
    None,
    Some(0),
    Some(0),
    Some(2),
    Some(0),
    Some(2),
    Some(0),
    Some(2),
    Some(0),
    Some(0),
    Some(0),
    Some(0),
    Some(0),
];

/// The columns of table 2-6 of MQTT 5.0: which codes may stand in which packet.
const REASONS: [(u8, &[u8]); 9] = [
    (
        2,
        &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90,
            0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
        ],
    ),
    (4, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
    (5, &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
    (6, &[0x00, 0x92]),
    (7, &[0x00, 0x92]),
    (
        9,
        &[
            0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2,
        ],
    ),
    (11, &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91]),
    (
        14,
        &[
            0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93,
            0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1,
            0xa2,
        ],
    ),
    (15, &[0x00, 0x18, 0x19]),
];

/// Will properties are told apart from those of CONNECT by a number that is no packet type.
const WILL: u8 = 0;

/// Table 2-4 of MQTT 5.0: identifier, type, and where it may stand. Types: b, a byte that is 0 or 1; w, two bytes; W,
/// two bytes not 0; d, four bytes; D, four bytes not 0; v, a variable byte integer not 0; x, binary; t, text; r, a
/// topic name; p, a pair of texts. What may stand more than once has a capital P or V.
const PROPERTIES: &[(u8, char, &[u8])] = &[
    (0x01, 'b', &[3, WILL]),
    (0x02, 'd', &[3, WILL]),
    (0x03, 't', &[3, WILL]),
    (0x08, 'r', &[3, WILL]),
    (0x09, 'x', &[3, WILL]),
    (0x0b, 'V', &[3]),
    (0x0b, 'v', &[8]),
    (0x11, 'd', &[1, 2, 14]),
    (0x12, 't', &[2]),
    (0x13, 'w', &[2]),
    (0x15, 't', &[1, 2, 15]),
    (0x16, 'x', &[1, 2, 15]),
    (0x17, 'b', &[1]),
    (0x18, 'd', &[WILL]),
    (0x19, 'b', &[1]),
    (0x1a, 't', &[2]),
    (0x1c, 't', &[2, 14]),
    (0x1f, 't', &[2, 4, 5, 6, 7, 9, 11, 14, 15]),
    (0x21, 'W', &[1, 2]),
    (0x22, 'w', &[1, 2]),
    (0x23, 'W', &[3]),
    (0x24, 'b', &[2]),
    (0x25, 'b', &[2]),
    (
        0x26,
        'P',
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, WILL],
    ),
    (0x27, 'D', &[1, 2]),
    (0x28, 'b', &[2]),
    (0x29, 'b', &[2]),
    (0x2a, 'b', &[2]),
];

/// Judges what stands at the front of `wire`, spoken in protocol level `level`.
pub(crate) fn judge(wire: &[u8], level: u8) -> Verdict {
    let Some((&first, rest)) = wire.split_first() else {
        return Verdict::Incomplete;
    };
    let (packet, flags) = (first >> 4, first & 15);
    let known = match packet {
        0 => false,
        3 => flags >> 1 & 3 != 3 && (flags & 8 == 0 || flags & 6 != 0),
        15 => level == 5 && flags == 0,
        _ => FLAGS[usize::from(packet)] == Some(flags),
    };
    if !known {
        return Verdict::Illegal;
    }
    let length = rest.iter().position(|byte| *byte < 0x80);
    let Some(last) = length.filter(|last| *last < 4) else {
        return if rest.len() < 4 {
            Verdict::Incomplete
        } else {
            Verdict::Illegal
        };
    };
    let remaining = rest[..=last]
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    // A CONNECT says itself which version it is of, and so whether its length has to be the shortest.
    let spoken = level;
    let level = match (packet, rest.get(last + 7)) {
        (1, Some(named)) if rest[last + 1..].starts_with(b"\0\x04MQTT") => *named,
        (1, _) => 4,
        _ => level,
    };
    if (spoken == 5 || level == 5) && last > 0 && rest[last] == 0 {
        return Verdict::Illegal;
    }
    let Some(body) = rest[last + 1..].get(..remaining) else {
        return Verdict::Incomplete;
    };
    let mut left = Left(body);
    let legal = fields(&mut left, packet, flags, level).is_some() && left.0.is_empty();
    match legal {
        true => Verdict::Legal(2 + last + remaining),
        false => Verdict::Illegal,
    }
}

/// What is not read yet. `None` of any of its looks: the packet is illegal.
struct Left<'a>(&'a [u8]);

impl<'a> Left<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        let taken = self.take(bytes)?;
        Some(
            taken
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.number(2)?;
        self.take(usize::try_from(length).unwrap())
    }

    fn text(&mut self) -> Option<&'a str> {
        let text = std::str::from_utf8(self.binary()?).ok()?;
        (!text.contains('\0')).then_some(text)
    }

    fn name(&mut self) -> Option<&'a str> {
        self.text().filter(|name| is_name(name))
    }

    fn filter(&mut self, level: u8) -> Option<&'a str> {
        self.text().filter(|filter| is_filter(filter, level))
    }

    fn id(&mut self) -> Option<()> {
        (self.number(2)? != 0).then_some(())
    }

    fn variable(&mut self) -> Option<u64> {
        let length = self.0.iter().position(|byte| *byte < 0x80)? + 1;
        let bytes = self.take(length)?;
        let shortest = length == 1 || bytes[length - 1] != 0;
        let value = bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
        (length <= 4 && shortest).then_some(value)
    }

    fn reason(&mut self, packet: u8) -> Option<u64> {
        let code = self.number(1)?;
        let (_, allowed) = REASONS.iter().find(|(kind, _)| *kind == packet)?;
        allowed
            .iter()
            .any(|known| u64::from(*known) == code)
            .then_some(code)
    }

    /// The identifiers that were there.
    fn properties(&mut self, place: u8) -> Option<Vec<u8>> {
        let length = usize::try_from(self.variable()?).unwrap();
        let mut inner = Left(self.take(length)?);
        let mut seen = Vec::new();
        while !inner.0.is_empty() {
            let id = u8::try_from(inner.number(1)?).unwrap();
            let row = |row: &&(u8, char, &[u8])| row.0 == id && row.2.contains(&place);
            let kind = PROPERTIES.iter().find(row)?.1;
            if seen.contains(&id) && !matches!(kind, 'P' | 'V') {
                return None;
            }
            seen.push(id);
            inner.value(kind)?;
        }
        // Authentication data without a method.
        (!seen.contains(&0x16) || seen.contains(&0x15)).then_some(seen)
    }

    fn value(&mut self, kind: char) -> Option<()> {
        let legal = match kind {
            'b' => self.number(1)? < 2,
            'w' => self.number(2).is_some(),
            'W' => self.number(2)? != 0,
            'd' => self.number(4).is_some(),
            'D' => self.number(4)? != 0,
            'v' | 'V' => self.variable()? != 0,
            'x' => self.binary().is_some(),
            't' => self.text().is_some(),
            'r' => self.name().is_some(),
            'P' => self.text().is_some() && self.text().is_some(),
            _ => unreachable!("the table has no other types"),
        };
        legal.then_some(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('#') && !name.contains('+')
}

/// Character by character: what may stand beside a wildcard.
fn is_filter(filter: &str, level: u8) -> bool {
    if let (5, Some(shared)) = (level, filter.strip_prefix("$share/")) {
        let Some((group, filter)) = shared.split_once('/') else {
            return false;
        };
        return is_name(group) && is_filter(filter, 4);
    }
    let text: Vec<char> = filter.chars().collect();
    let separated = |at: Option<&char>| at.is_none_or(|character| *character == '/');
    let alone = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        separated(before) && separated(text.get(at + 1))
    };
    !text.is_empty()
        && text
            .iter()
            .enumerate()
            .all(|(at, character)| match character {
                '#' => at + 1 == text.len() && alone(at),
                '+' => alone(at),
                _ => true,
            })
}

fn fields(left: &mut Left<'_>, packet: u8, flags: u8, level: u8) -> Option<()> {
    let five = level == 5;
    match packet {
        1 => return connect(left),
        2 => {
            let present = left.number(1).filter(|flags| *flags < 2)?;
            let code = match five {
                true => left.reason(2)?,
                false => left.number(1).filter(|code| *code < 6)?,
            };
            if five {
                left.properties(2)?;
            }
            return (present == 0 || code == 0).then_some(());
        }
        3 => {
            let name = left.text()?;
            if flags & 6 != 0 {
                left.id()?;
            }
            let seen = if five {
                left.properties(3)?
            } else {
                Vec::new()
            };
            left.0 = &[];
            return (is_name(name) || (name.is_empty() && seen.contains(&0x23))).then_some(());
        }
        4..=7 => {
            left.id()?;
            if five && !left.0.is_empty() {
                left.reason(packet)?;
                if !left.0.is_empty() {
                    left.properties(packet)?;
                }
            }
        }
        8 | 10 => {
            left.id()?;
            if five {
                left.properties(packet)?;
            }
            // One at least.
            loop {
                let filter = left.filter(level)?;
                if packet == 8 {
                    options(left.number(1)?, filter, five)?;
                }
                if left.0.is_empty() {
                    break;
                }
            }
        }
        9 | 11 => {
            left.id()?;
            if five {
                left.properties(packet)?;
            }
            if five || packet == 9 {
                loop {
                    match five {
                        true => drop(left.reason(packet)?),
                        false => drop(left.number(1).filter(|code| matches!(code, 0..=2 | 0x80))?),
                    }
                    if left.0.is_empty() {
                        break;
                    }
                }
            }
        }
        14 if five && !left.0.is_empty() => {
            left.reason(14)?;
            if !left.0.is_empty() {
                left.properties(14)?;
            }
        }
        15 if !left.0.is_empty() => {
            left.reason(15)?;
            let seen = left.properties(15)?;
            return seen.contains(&0x15).then_some(());
        }
        _ => {}
    }
    Some(())
}

fn options(options: u64, filter: &str, five: bool) -> Option<()> {
    let (qos, no_local) = (options & 3, options & 4 != 0);
    let legal = match five {
        false => options < 3,
        true => {
            let shared = filter.starts_with("$share/");
            qos < 3 && options >> 4 & 3 < 3 && options < 0x40 && !(no_local && shared)
        }
    };
    legal.then_some(())
}

fn connect(left: &mut Left<'_>) -> Option<()> {
    (left.binary()? == b"MQTT").then_some(())?;
    let level = left.number(1).filter(|level| matches!(level, 4 | 5))?;
    let flags = left.number(1)?;
    let bit = |bit: u64| flags >> bit & 1 == 1;
    let will_qos = flags >> 3 & 3;
    let sound = !bit(0)
        && will_qos != 3
        && (bit(2) || (will_qos == 0 && !bit(5)))
        && (level == 5 || bit(7) || !bit(6));
    sound.then_some(())?;
    left.number(2)?;
    if level == 5 {
        left.properties(1)?;
    }
    left.text()?;
    if bit(2) {
        if level == 5 {
            left.properties(WILL)?;
        }
        left.name()?;
        left.binary()?;
    }
    if bit(7) {
        left.text()?;
    }
    if bit(6) {
        left.binary()?;
    }
    Some(())
}

/// A legal packet of MQTT 5.0, made from the tables.
pub(crate) fn packet_v5(random: &mut Random) -> Vec<u8> {
    let packet = 1 + u8::try_from(random.below(15)).unwrap();
    let mut flags = FLAGS[usize::from(packet)].unwrap_or(0);
    let mut body = Vec::new();
    match packet {
        1 => connect_v5(random, &mut body),
        2 => {
            let code = pick_reason(random, 2);
            body.extend([u8::from(code == 0 && random.coin()), code]);
            properties_v5(random, 2, &mut body);
        }
        3 => {
            let qos = u8::try_from(random.below(3)).unwrap();
            let dup = u8::from(qos > 0 && random.coin());
            flags = dup << 3 | qos << 1 | u8::from(random.coin());
            field(random.pick(&NAMES).as_bytes(), &mut body);
            if qos > 0 {
                body.extend([0, 1 + random.byte() % 9]);
            }
            properties_v5(random, 3, &mut body);
            body.extend(random.bytes(9));
        }
        4..=7 => {
            body.extend([0, 7]);
            if random.coin() {
                body.push(pick_reason(random, packet));
                if random.coin() {
                    properties_v5(random, packet, &mut body);
                }
            }
        }
        8 | 10 => {
            body.extend([0, 7]);
            properties_v5(random, packet, &mut body);
            for _ in 0..1 + random.below(3) {
                let filter = random.pick(&FILTERS);
                field(filter.as_bytes(), &mut body);
                let local = u8::from(random.coin() && !filter.starts_with("$share")) << 2;
                let handling = u8::try_from(random.below(3)).unwrap() << 4;
                let qos = u8::try_from(random.below(3)).unwrap();
                if packet == 8 {
                    body.push(qos | local | u8::from(random.coin()) << 3 | handling);
                }
            }
        }
        9 | 11 => {
            body.extend([0, 7]);
            properties_v5(random, packet, &mut body);
            for _ in 0..1 + random.below(3) {
                body.push(pick_reason(random, packet));
            }
        }
        14 if random.coin() => {
            body.push(pick_reason(random, 14));
            if random.coin() {
                properties_v5(random, 14, &mut body);
            }
        }
        15 if random.coin() => {
            body.push(pick_reason(random, 15));
            // An authentication method, which it has to have.
            let mut block = vec![0x15];
            field(b"m", &mut block);
            body.push(u8::try_from(block.len()).unwrap());
            body.append(&mut block);
        }
        _ => {}
    }
    let mut wire = vec![packet << 4 | flags];
    variable(body.len(), &mut wire);
    wire.append(&mut body);
    wire
}

const NAMES: [&str; 5] = ["a", "a/b", "/", "é/😀", "$SYS/x"];
const FILTERS: [&str; 7] = ["a", "#", "+", "a/+/b", "a/#", "$share/g/é", "$share/g/#"];

fn connect_v5(random: &mut Random, body: &mut Vec<u8>) {
    let (will, user, password) = (random.coin(), random.coin(), random.coin());
    let mut flags = u8::from(user) << 7 | u8::from(password) << 6 | u8::from(random.coin()) << 1;
    if will {
        flags |= 4 | u8::from(random.coin()) << 5 | u8::try_from(random.below(3)).unwrap() << 3;
    }
    field(b"MQTT", body);
    body.extend([5, flags, 0, random.byte()]);
    properties_v5(random, 1, body);
    field(random.pick(&["", "id", "é"]).as_bytes(), body);
    if will {
        properties_v5(random, WILL, body);
        field(random.pick(&NAMES).as_bytes(), body);
        let payload = random.bytes(5);
        field(&payload, body);
    }
    if user {
        field(b"u", body);
    }
    if password {
        let password = random.bytes(5);
        field(&password, body);
    }
}

fn pick_reason(random: &mut Random, packet: u8) -> u8 {
    let column = REASONS.iter().find(|(kind, _)| *kind == packet).unwrap();
    random.pick(column.1)
}

fn properties_v5(random: &mut Random, place: u8, into: &mut Vec<u8>) {
    let mut block = Vec::new();
    for (id, kind, places) in PROPERTIES {
        // Authentication data would need its method.
        if !places.contains(&place) || *id == 0x16 || random.below(4) != 0 {
            continue;
        }
        let times = if matches!(kind, 'P' | 'V') { 2 } else { 1 };
        for _ in 0..times {
            block.push(*id);
            match kind {
                'b' => block.push(u8::from(random.coin())),
                'w' | 'W' => block.extend([random.byte(), 1]),
                'd' | 'D' => block.extend([random.byte(), 0, 0, 1]),
                'v' | 'V' => variable(1 + random.below(300), &mut block),
                'x' => {
                    let data = random.bytes(4);
                    field(&data, &mut block);
                }
                't' => field(random.pick(&["", "words", "é"]).as_bytes(), &mut block),
                'r' => field(random.pick(&NAMES).as_bytes(), &mut block),
                _ => {
                    field(b"name", &mut block);
                    field("wért".as_bytes(), &mut block);
                }
            }
        }
    }
    variable(block.len(), into);
    into.append(&mut block);
}

fn field(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
    into.extend(bytes);
}

fn variable(mut value: usize, into: &mut Vec<u8>) {
    while value > 0x7f {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}
