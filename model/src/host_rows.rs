//! Per-layer embeddings gathered by the host: the table of E2B is 1.17 GB, more than many devices
//! can bind. The host packs the rows of the coming tokens into a small buffer instead.

use crate::{
    Result,
    backend::{Backend, View},
    checkpoint::Checkpoint,
    pack::{Matrix, WeightMode},
    plan::HostRows,
};

/// The table where the checkpoint has it, and the buffers its rows go to.
#[derive(Debug)]
pub(crate) struct HostTable {
    table: Matrix,
    /// One row, for decode.
    pub(crate) one: HostRows,
    /// A chunk of rows, for prefill.
    pub(crate) many: HostRows,
}

impl HostTable {
    pub(crate) async fn new(
        checkpoint: &Checkpoint,
        mode: WeightMode,
        backend: &mut Backend,
        chunk: u32,
    ) -> Result<Self> {
        let table = Matrix::table(checkpoint.ple_table()?, mode).row_by_row();
        let (row, scales) = (table.row_bytes(), table.scale.row_bytes(table.columns));
        let mut rows = Vec::new();
        for n in [1, u64::from(chunk)] {
            rows.push(HostRows {
                rows: backend.buffer("ple rows from the host", row * n).await?,
                scales: if scales > 0 {
                    Some(backend.buffer("ple scales from the host", scales * n).await?)
                } else {
                    None
                },
            });
        }
        Ok(Self { table, one: rows[0], many: rows[1] })
    }

    /// Packs and sends the rows of `tokens`.
    pub(crate) fn gather(&self, backend: &mut Backend, tokens: &[u32], many: bool) -> Result<()> {
        let (mut rows, mut scales) = (Vec::new(), Vec::new());
        for &t in tokens {
            self.table.pack(t..t + 1, &mut rows, &mut scales)?;
        }
        let to = if many { self.many } else { self.one };
        send(backend, to.rows, &rows);
        if let Some(view) = to.scales {
            send(backend, view, &scales);
        }
        Ok(())
    }
}

fn send(backend: &mut Backend, view: View, words: &[u32]) {
    backend.write(view, bytemuck::cast_slice(words));
}
