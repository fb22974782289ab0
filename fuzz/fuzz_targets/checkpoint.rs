//! Any bytes as a checkpoint: refused or accepted, never a panic, never an absurd allocation.
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run checkpoint fuzz/corpus/checkpoint fuzz/seeds/checkpoint -- -max_total_time=60
//! ```
//!
//! Input: the length of the configuration in 4 bytes (little endian), the configuration, the
//! weights. The seeds come from `cargo test -p wgforge-model --test checkpoint_hostile --
//! --ignored`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wgforge_model::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else { return };
    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX).min(rest.len());
    let (config, weights) = rest.split_at(len);
    if let Ok(checkpoint) = Checkpoint::from_bytes(config, None, weights.to_vec()) {
        let _ = checkpoint.validate();
    }
});
