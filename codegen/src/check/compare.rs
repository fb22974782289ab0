//! How closely an output must agree with the reference.

use super::POISON;
use crate::{io, types::Act};

/// Floats beyond this stand for "nothing" (the maximum of no values), not for a magnitude.
const SENTINEL: f32 = 1e37;

/// How an output's words are to be compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Every bit.
    Exact,
    /// Floats: this fraction of the output's largest magnitude. Values beyond 1e37 mark what is
    /// empty: both sides must have them in the same places.
    Relative(f32),
    /// Codes: this many steps, in at most one element of fifty and four (a value near a grid's edge:
    /// few distinct inputs put several elements there at once).
    Steps(i32),
    /// Codes: this many steps, in any element.
    Within(i32),
    /// Exact sums put on a static grid: as [`Self::Relative`] (0: every bit), but one element of a
    /// thousand may lie on the next step. Division by a grid is not correctly rounded on every
    /// device, so a quotient within its last bits of an edge falls on either side.
    Edges(f32),
    /// Not at all: notes that a kernel makes for itself.
    Ignored,
}

impl Tolerance {
    /// For an output of type `act` that is computed in floats: `bound` relative to the largest
    /// value, f16 at least its own rounding, codes one step.
    pub fn float(act: Act, bound: f32) -> (Act, Self) {
        match act {
            Act::F32 | Act::I32 | Act::Fixed => (act, Self::Relative(bound)),
            // One rounding to 11 bits, either way.
            Act::F16 => (act, Self::Relative(bound.max(1.1e-3))),
            Act::I8 => (act, Self::Steps(1)),
        }
    }

    /// Compares words that hold elements of type `act`.
    ///
    /// # Errors
    /// Says which element differs, and by how much.
    pub fn compare(self, act: Act, expected: &[u32], got: &[u32]) -> Result<(), String> {
        if expected.len() != got.len() {
            return Err(format!("{} words instead of {}", got.len(), expected.len()));
        }
        match self {
            Self::Exact => match expected.iter().zip(got).position(|(a, b)| a != b) {
                Some(i) => Err(format!("word {i} is {:#010x} instead of {:#010x}", got[i], expected[i])),
                None => Ok(()),
            },
            Self::Steps(steps) => codes(steps, 50, 4, expected, got),
            Self::Within(steps) => codes(steps, 1, 0, expected, got),
            Self::Relative(bound) => floats(bound, false, act, expected, got),
            // A step of the sum's grid may be some steps of the codes' own.
            Self::Edges(_) if act == Act::I8 => codes(4, 1000, 1, expected, got),
            Self::Ignored => Ok(()),
            Self::Edges(bound) => floats(bound, true, act, expected, got),
        }
    }
}

/// One code in `rare` and `some` more may differ.
fn codes(steps: i32, rare: usize, some: usize, expected: &[u32], got: &[u32]) -> Result<(), String> {
    let mut moved = 0;
    for i in 0..expected.len() * 4 {
        let (a, b) = (i32::from(io::code(expected, i)), i32::from(io::code(got, i)));
        if (a - b).abs() > steps {
            return Err(format!("code {i} is {b} instead of {a}"));
        }
        moved += usize::from(a != b);
    }
    if moved > expected.len() * 4 / rare + some {
        return Err(format!("{moved} of {} codes differ", expected.len() * 4));
    }
    Ok(())
}

fn floats(bound: f32, edges: bool, act: Act, expected: &[u32], got: &[u32]) -> Result<(), String> {
    let place = |i: usize| match act {
        Act::F16 => i / 2,
        Act::Fixed => io::fixed_words(i)[0],
        _ => i,
    };
    let n = match act {
        Act::F16 => expected.len() * 2,
        Act::Fixed => expected.len() / 2,
        _ => expected.len(),
    };
    let live = |words: &[u32], i: usize| {
        let w = words[place(i)];
        (w != POISON).then(|| io::load(words, act, i, 1.0))
    };
    let magnitudes = (0..n).filter_map(|i| live(expected, i)).map(f32::abs).filter(|v| *v < SENTINEL);
    let largest = magnitudes.fold(0.0f32, f32::max);
    // Devices may flush what is below the smallest normal f16. Inputs are of unit size, and tanh is
    // as exact as f32 near 1 only: where little of it is left (gelu's tail), that is the error.
    let least = if act == Act::F16 { 6.2e-5 } else { 4e-6 };
    let slack = if bound == 0.0 { 0.0 } else { (bound * largest).max(least) };
    // A grid has 127 steps up to its largest value; the cases reach beyond half of them.
    let (step, mut moved) = (largest / 50.0, 0);
    for i in 0..n {
        match (live(expected, i), live(got, i)) {
            (None, _) => {}
            (Some(_), None) => return Err(format!("element {i} was not written")),
            (Some(a), Some(b)) if a.abs() >= SENTINEL && b.abs() >= SENTINEL && a * b > 0.0 => {}
            (Some(a), Some(b)) if (a - b).abs() <= slack => {}
            (Some(a), Some(b)) if edges && (a - b).abs() <= step && moved <= n / 1000 => moved += 1,
            (Some(a), Some(b)) => {
                return Err(format!("element {i} is {b} instead of {a} (largest magnitude {largest})"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(values: &[f32]) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn marks_of_empty_ranges_do_not_widen_the_bound() {
        let relative = Tolerance::Relative(1e-4);
        let expected = words(&[-3.0e38, 1.0, 2.0]);
        assert_eq!(relative.compare(Act::F32, &expected, &words(&[-3.0e38, 1.0, 2.0])), Ok(()));
        assert!(relative.compare(Act::F32, &expected, &words(&[-3.0e38, 1.0, 2.1])).is_err(), "2.1");
        assert!(
            relative.compare(Act::F32, &expected, &words(&[0.0, 1.0, 2.0])).is_err(),
            "a mark is missing"
        );
        assert!(relative.compare(Act::F32, &expected, &words(&[3.0e38, 1.0, 2.0])).is_err(), "the sign");
    }

    #[test]
    fn what_was_not_written_shows() {
        let relative = Tolerance::Relative(1.0);
        assert!(relative.compare(Act::F32, &words(&[1.0]), &[POISON]).is_err(), "poison");
        assert_eq!(relative.compare(Act::F32, &[POISON], &words(&[1.0])), Ok(()), "nobody expects anything");
        assert!(relative.compare(Act::F32, &words(&[1.0]), &[]).is_err(), "too short");
        assert!(relative.compare(Act::F32, &words(&[1.0]), &words(&[f32::NAN])).is_err(), "not a number");
    }

    #[test]
    fn one_element_of_a_thousand_may_fall_on_the_other_side_of_an_edge() {
        let expected: Vec<f32> = (0..100).map(|i| i as f32).collect();
        let mut got = expected.clone();
        got[7] += 1.0;
        let compare = |got: &[f32]| Tolerance::Edges(0.0).compare(Act::F32, &words(&expected), &words(got));
        assert_eq!(compare(&got), Ok(()), "one of a hundred is within the first of a thousand");
        got[8] += 1.0;
        assert!(compare(&got).is_err(), "two of a hundred");
        got = expected.clone();
        got[7] += 3.0;
        assert!(compare(&got).is_err(), "three steps");
    }

    #[test]
    fn few_codes_may_move_by_one_step() {
        let expected = vec![0u32; 100];
        let mut got = expected.clone();
        got[0] = 0x01ff_0100;
        assert_eq!(Tolerance::Steps(1).compare(Act::I8, &expected, &got), Ok(()), "three of 400");
        got[0] = 2;
        assert!(Tolerance::Steps(1).compare(Act::I8, &expected, &got).is_err(), "two steps");
        got.fill(1);
        assert!(Tolerance::Steps(1).compare(Act::I8, &expected, &got).is_err(), "a quarter of all");
    }
}
