//! What comes before the first layer: embeddings and per-layer inputs.

use wgforge_codegen::{
    Workload,
    kernels::{gather, gemv::Epilogue, ple_mix},
    types::Act,
};

use super::{Before, Builder, HostRows, Stream, u, zeros};
use crate::{
    Result,
    backend::View,
    weights::{Part, TableParts},
};

impl Builder<'_> {
    /// Embeddings and per-layer inputs of the tokens. Returns the residual stream. Of one token it comes last,
    /// though its steps come first: only then it is known whether there are sums, which it clears.
    pub(crate) async fn embed(&mut self, host: Option<HostRows>) -> Result<View> {
        let (w, c) = (self.weights, self.config);
        let all = u(c.ple_width());
        let shape = ple_mix::Shape {
            layers: u(c.num_layers()),
            dim: u(c.ple_dim),
            capacity: self.capacity(),
            context: self.act,
            scale: (c.hidden as f64).powf(-0.5),
            eps: self.eps(),
            gather: None,
            zeros: None,
        };
        let sums = if self.summing { Some(self.all_sums().await?) } else { None };
        let of_table = self.gathers(&w.ple_table, (c.ple_dim as f64).sqrt(), host);
        let joined = match &of_table[..] {
            [(gather, _)] => {
                let gather = Some(gather.clone());
                let joined = ple_mix::Shape { gather, zeros: sums.map(zeros), ..shape.clone() };
                let apart = Workload::PleMix(shape.clone());
                Some(joined).filter(|j| self.joins(|f| f.products, &Workload::PleMix(j.clone()), &apart))
            }
            _ => None,
        };
        if joined.is_none() && sums.is_some() {
            self.clear().await?;
        }
        let x = self.embedded().await?;
        for (gather, mut bound) in self.gathers(&w.embed, (c.hidden as f64).sqrt(), None) {
            bound.push(("out", x));
            self.push("embed".into(), Workload::Gather(gather), &bound)?;
        }
        let mut bound = vec![("weight", w.ple_norm)];
        if joined.is_some() {
            bound.extend(of_table.into_iter().flat_map(|(_, table)| table));
        } else {
            let rows = self.vector("ple_rows", all, Act::F32).await?;
            for (gather, mut bound) in of_table {
                bound.push(("out", rows));
                self.push("ple_rows".into(), Workload::Gather(gather), &bound)?;
            }
            bound.push(("table", rows));
        }
        let context = self.vector("ple_context", all, self.act).await?;
        if w.ple_projection.input == Act::F32 && w.ple_projection.grids.is_none() {
            let out = (context, self.act);
            self.product("ple_projection", &w.ple_projection, Epilogue::Store, x, None, out)?;
        } else {
            let names = ["ple_input", "ple_projection", "", "ple_input"].map(str::to_owned);
            let before = Before { stream: Stream::Whole(x), scaled: false, norm: false, site: &w.embedding };
            let out = (context, self.act);
            self.normed_product(names, before, &w.ple_projection, Epilogue::Store, None, out).await?;
        }
        let ple = self.ple().await?;
        bound.extend([("context", context), ("out", ple)]);
        bound.extend(sums.iter().flat_map(|[a, b]| [("a", *a), ("b", *b)]));
        self.push("ple_mix".into(), Workload::PleMix(joined.unwrap_or(shape)), &bound)?;
        Ok(x)
    }

    /// Where [`Self::embed`] leaves the residual stream.
    pub(crate) async fn embedded(&mut self) -> Result<View> {
        self.vector("embed", u(self.config.hidden), Act::F32).await
    }

    /// Per-layer inputs, `[layers][tokens][stride(dim)]` f32.
    pub(crate) async fn ple(&mut self) -> Result<View> {
        let bytes = Act::F32.row_bytes(u(self.config.ple_dim)) * u64::from(self.capacity());
        self.named("ple", bytes * self.config.num_layers() as u64).await
    }

    /// What reads a token's row of a table, one for each of its parts, and what that binds.
    fn gathers(
        &self,
        t: &TableParts,
        multiplier: f64,
        host: Option<HostRows>,
    ) -> Vec<(gather::Shape, Vec<(&'static str, View)>)> {
        let shape = |rows, first, by_slot| gather::Shape {
            rows,
            columns: t.columns,
            format: t.format,
            scale: t.scale,
            first,
            by_slot,
            multiplier,
        };
        if let Some(h) = host.filter(|_| t.on_host) {
            let mut bound = vec![("table", h.rows)];
            bound.extend(h.scales.map(|s| ("scales", s)));
            return vec![(shape(self.capacity(), 0, true), bound)];
        }
        let of_part = |part: &Part| {
            let mut bound = vec![("ids", self.ids), ("table", part.weights)];
            bound.extend(part.scales.map(|s| ("scales", s)));
            (shape(part.rows, part.first, false), bound)
        };
        t.parts.iter().map(of_part).collect()
    }
}
