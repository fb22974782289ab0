//! The end of a token: the next one is chosen among its logits.

use wgforge_codegen::{
    Variant, Workload,
    kernels::{argmax, sample, topk},
};

use super::{Builder, RING, u};
use crate::{Result, backend::View};

impl Builder<'_> {
    /// The greedy choice among the logits of one token.
    pub(crate) async fn greedy(&mut self, logits: View, chosen: View) -> Result<()> {
        let n = u(self.config.vocab_size);
        let first = Workload::Argmax(argmax::Shape { n, last: false, ring: 0 });
        let slices = match self.backend.choose(first.clone())? {
            Variant::Argmax { shape, config } => shape.slices(&config),
            _ => 1,
        };
        let values = self.named("best_values", u64::from(slices) * 4).await?;
        let indices = self.named("best_indices", u64::from(slices) * 4).await?;
        let bound = [
            ("logits", logits),
            ("values", values),
            ("indices", indices),
            ("run", self.run),
            ("ids", self.ids),
            ("chosen", chosen),
        ];
        self.push("argmax".into(), first, &bound)?;
        self.push(
            "argmax.last".into(),
            Workload::Argmax(argmax::Shape { n: slices, last: true, ring: RING }),
            &bound,
        )
    }

    /// A draw from the `keep` most likely tokens by the parameters in `sampling`.
    pub(crate) async fn sampled(
        &mut self,
        logits: View,
        chosen: View,
        sampling: View,
        keep: u32,
    ) -> Result<()> {
        let (mut values, mut indices) = (logits, logits);
        for (round, shape) in topk::Shape::rounds(u(self.config.vocab_size), keep).into_iter().enumerate() {
            let bytes = u64::from(shape.slices() * keep) * 4;
            let top_values = self.named(&format!("top_values{round}_{keep}"), bytes).await?;
            let top_indices = self.named(&format!("top_indices{round}_{keep}"), bytes).await?;
            let bound = [
                ("values", values),
                ("indices", indices),
                ("top_values", top_values),
                ("top_indices", top_indices),
            ];
            self.push(format!("topk.{round}"), Workload::Topk(shape), &bound)?;
            (values, indices) = (top_values, top_indices);
        }
        let bound = [
            ("run", self.run),
            ("values", values),
            ("indices", indices),
            ("sampling", sampling),
            ("ids", self.ids),
            ("chosen", chosen),
        ];
        self.push("sample".into(), Workload::Sample(sample::Shape { n: keep, ring: RING }), &bound)
    }
}
