//! Inputs for any workload, and the comparison of a device's outputs with the reference.
//!
//! Inputs are drawn afresh from a seed; outputs start poisoned, so an element nobody wrote shows.
//! What is particular to a kernel stands in its own file, as [`crate::Kernel::draw`] and
//! [`crate::Kernel::output`]; here is what all of them share.

mod compare;
mod draw;

use crate::{
    Variant,
    io::{Buf, Io},
};

pub use compare::Tolerance;
pub use draw::{Draw, Rng};

/// What an output that was never written holds: a NaN no kernel produces.
pub const POISON: u32 = 0x7fc0_dead;

/// What inputs are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inputs {
    /// Spread evenly over what is usual.
    Random,
    /// Codes and weights at the ends of their ranges, floats of very different magnitudes, grids
    /// that saturate.
    Extreme,
    /// Small integers and powers of two: float sums are exact in any order, and quotients by a
    /// grid often lie halfway between two codes, so that the direction of rounding shows.
    Ties,
}

impl Inputs {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Random, Self::Extreme, Self::Ties];
}

/// Buffers for one call of a variant, in the order of its bindings.
#[derive(Debug, Clone)]
pub struct Case {
    /// Inputs filled, outputs poisoned.
    pub buffers: Vec<Vec<u32>>,
    /// Tokens of the call.
    pub tokens: u32,
    /// Position of the first token.
    pub position: u32,
}

impl Case {
    /// Draws a case. `tokens` counts for kernels that take several; `position` sets how many keys
    /// attention sees before the first token.
    pub fn draw(variant: &Variant, inputs: Inputs, tokens: u32, position: u32, seed: u64) -> Self {
        let tokens = if variant.workload().one_token() { 1 } else { tokens };
        let mut d = Draw { rng: Rng::new(seed), inputs, tokens, position };
        let buffers = variant.bindings().into_iter().map(|name| variant.draw(name, &mut d)).collect();
        Self { buffers, tokens, position }
    }

    /// What the reference makes of it.
    pub fn expected(&self, variant: &Variant) -> Vec<Vec<u32>> {
        let mut buffers = self.buffers.clone();
        let names = variant.bindings();
        let written = variant.written();
        let bufs = names
            .iter()
            .zip(&mut buffers)
            .map(|(n, b)| if written.contains(n) { Buf::Write(b) } else { Buf::Read(b) })
            .collect();
        variant.reference(&mut Io::new(names.clone(), bufs, self.tokens as usize));
        buffers
    }

    /// Compares outputs as [`Variant::output`] says: integer paths bit for bit, floats within a
    /// bound relative to the largest value, codes that come from float sums within one step.
    ///
    /// # Errors
    /// Says which element of which output differs, and by how much.
    pub fn compare(&self, variant: &Variant, expected: &[Vec<u32>], got: &[Vec<u32>]) -> Result<(), String> {
        let written = variant.written();
        for (i, name) in variant.bindings().into_iter().enumerate() {
            if written.contains(&name) {
                let (act, tolerance) = variant.output(name);
                let (Some(expected), Some(got)) = (expected.get(i), got.get(i)) else {
                    return Err(format!("`{name}`: there is no such buffer"));
                };
                tolerance.compare(act, expected, got).map_err(|e| format!("`{name}`: {e}"))?;
            }
        }
        Ok(())
    }
}
