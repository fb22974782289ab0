//! Random bytes with the statistics of weights, from a counter: any part of any tensor can be
//! made by any thread at any time.

/// What a tensor is filled with. Every pattern makes 8 bytes from 64 random bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fill {
    /// int4 codes with the mean 0: −7 to 7 evenly but for the ends, −8 seldom.
    Int4,
    /// int2 codes with the mean 0: −1, 0 and 1, and −2 seldom.
    Int2,
    /// Signed bytes, evenly.
    Int8,
    /// f32 evenly in 0.75 to 1.25 times the value.
    Scale(f32),
    /// One f32.
    Const(f32),
    /// bf16 evenly around zero with this root mean square.
    Bf16(f32),
    /// bf16 of either sign (one in eight negative), 0.5 to 1.5 times the value.
    Norm(f32),
    /// bf16 evenly in 0.5 to 1.
    Scalar,
}

/// Root mean square of the codes of [`Fill::Int4`].
pub(super) const RMS_INT4: f32 = 4.288;
/// Root mean square of the codes of [`Fill::Int2`].
pub(super) const RMS_INT2: f32 = 0.8292;
/// Root mean square of the codes of [`Fill::Int8`].
pub(super) const RMS_INT8: f32 = 73.90;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// `SplitMix64`'s finaliser.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A tensor's own stream of random numbers.
pub(super) fn key(seed: u64, name: &str) -> u64 {
    let fnv = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    mix(mix(seed.wrapping_add(GOLDEN)) ^ fnv)
}

/// Fills `out`, which begins at byte `start` of the tensor; `start` is a multiple of 8.
pub(super) fn fill(fill: Fill, key: u64, start: u64, out: &mut [u8]) {
    // The branch stays outside the loop over words.
    match fill {
        Fill::Int4 => words(key, start, out, int4),
        Fill::Int2 => words(key, start, out, int2),
        Fill::Int8 => words(key, start, out, |r| r),
        Fill::Scale(base) => words(key, start, out, |r| f32s(r, |u| base * (0.75 + 0.5 * u))),
        Fill::Const(value) => words(key, start, out, |r| f32s(r, |_| value)),
        Fill::Bf16(rms) => {
            // Evenly in −a to a has the root mean square a/√3.
            let a = rms * 3.0_f32.sqrt();
            words(key, start, out, |r| bf16s(r, |u| a * (2.0 * u - 1.0)));
        }
        Fill::Norm(base) => words(key, start, out, |r| {
            bf16s(r, |u| {
                // The top eighth of the range chooses the sign, the rest of the bits the size.
                let (sign, u) = if u >= 0.875 { (-1.0, (u - 0.875) * 8.0) } else { (1.0, u / 0.875) };
                sign * base * (0.5 + u)
            })
        }),
        Fill::Scalar => words(key, start, out, |r| bf16s(r, |u| 0.5 + 0.5 * u)),
    }
}

fn words(key: u64, start: u64, out: &mut [u8], make: impl Fn(u64) -> u64) {
    debug_assert_eq!(start % 8, 0, "blocks begin on whole words");
    let mut counter = key.wrapping_add((start / 8).wrapping_mul(GOLDEN));
    let mut next = || {
        counter = counter.wrapping_add(GOLDEN);
        make(mix(counter)).to_le_bytes()
    };
    let (whole, tail) = out.as_chunks_mut::<8>();
    for word in whole {
        *word = next();
    }
    if !tail.is_empty() {
        let last = next();
        tail.copy_from_slice(&last[..tail.len()]);
    }
}

/// Sixteen nibbles. Of the zeros, which stand for −8, one in eight stays, one in eight becomes
/// 15, which stands for 7, and the rest 8, which stands for 0. So the extremes occur, and the
/// mean is 0: a mean would add up over a long row and feed back through the layers.
fn int4(r: u64) -> u64 {
    const LOW: u64 = 0x1111_1111_1111_1111;
    let zero = !(r | r >> 1 | r >> 2 | r >> 3) & LOW;
    let [a, b, c] = coins(r);
    r | (zero & !(a & b & c)) << 3 | ((zero & a & !b & c) * 7)
}

/// Thirty-two pairs of bits, likewise: of the zeros, which stand for −2, one in eight stays, two
/// in eight become 3, which stands for 1, and the rest 2, which stands for 0.
fn int2(r: u64) -> u64 {
    const LOW: u64 = 0x5555_5555_5555_5555;
    let zero = !(r | r >> 1) & LOW;
    let [a, b, c] = coins(r);
    r | (zero & !(a & b & c)) << 1 | (zero & a & !b)
}

/// Bits of which half are set, thrice.
fn coins(r: u64) -> [u64; 3] {
    let other = mix(r);
    [other, other.rotate_left(21), other.rotate_left(42)]
}

/// Two floats, each from a number in [0, 1).
fn f32s(r: u64, value: impl Fn(f32) -> f32) -> u64 {
    let one = |bits: u64| u64::from(value((bits & 0xFF_FFFF) as f32 / 16_777_216.0).to_bits());
    one(r >> 8) | one(r >> 40) << 32
}

/// Four bf16, each from a number in [0, 1).
fn bf16s(r: u64, value: impl Fn(f32) -> f32) -> u64 {
    let one = |shift: u32| {
        let unit = ((r >> shift & 0xFFFF) as f32 + 0.5) / 65_536.0;
        let bits = value(unit).to_bits();
        // To nearest; ties do not matter here.
        u64::from(bits.wrapping_add(0x8000) >> 16) << shift
    };
    one(0) | one(16) | one(32) | one(48)
}
