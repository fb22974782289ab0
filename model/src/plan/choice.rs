//! The end of a token: the next one is chosen among its logits.

use wgforge_codegen::{
    Variant, Workload,
    kernels::{argmax, gemv, sample, topk},
};

use super::{Builder, RING, u};
use crate::{
    Result,
    backend::{Step, View},
};

/// Workgroups that a head is to have at least.
const LEAST_TOPS: u32 = 64;

/// What the head leaves: f32 rows of [`wgforge_codegen::types::stride`]`(vocab)`.
#[derive(Debug, Clone)]
pub(crate) struct Logits {
    pub(crate) view: View,
    /// The largest of each of its workgroups, and the search for the largest of those.
    tops: Option<(View, argmax::Shape)>,
}

impl Builder<'_> {
    /// Has the head leave the largest logit of each of its workgroups, where the plan has that in place of
    /// the first dispatch of a greedy choice.
    pub(super) async fn with_tops(&mut self, logits: View) -> Result<Logits> {
        let without = Logits { view: logits, tops: None };
        let n = u(self.config.vocab_size);
        let Some(Step { variant: Variant::Gemv { shape, .. }, .. }) = self.steps.last() else {
            return Ok(without);
        };
        let joined = Workload::Gemv(gemv::Shape { tops: gemv::TOPS, ..shape.clone() });
        let apart = Workload::Argmax(argmax::Shape::first(n));
        // Of a small vocabulary they would be few, and the head's workgroups with them.
        let few = self.fusion.is_none() && n < LEAST_TOPS * gemv::TOPS;
        if few || shape.rows != n || !self.joins(|f| f.choice, &joined, &apart) {
            return Ok(without);
        }
        let variant = self.backend.choose(joined)?;
        let search = argmax::Shape::search(n, gemv::TOPS, RING);
        let tops = self.named("tops", u64::from(search.n) * 4).await?;
        if let Some(head) = self.steps.last_mut() {
            head.variant = variant;
            head.views.push(tops);
        }
        Ok(Logits { view: logits, tops: Some((tops, search)) })
    }

    /// The greedy choice among the logits of one token.
    pub(crate) async fn greedy(&mut self, logits: &Logits, chosen: View) -> Result<()> {
        let mut bound =
            vec![("logits", logits.view), ("run", self.run), ("ids", self.ids), ("chosen", chosen)];
        if let Some((tops, search)) = &logits.tops {
            bound.push(("values", *tops));
            return self.push("argmax".into(), Workload::Argmax(search.clone()), &bound);
        }
        let first = Workload::Argmax(argmax::Shape::first(u(self.config.vocab_size)));
        let slices = match self.backend.choose(first.clone())? {
            Variant::Argmax { shape, config } => shape.slices(&config),
            _ => 1,
        };
        let values = self.named("best_values", u64::from(slices) * 4).await?;
        let indices = self.named("best_indices", u64::from(slices) * 4).await?;
        bound.extend([("values", values), ("indices", indices)]);
        self.push("argmax".into(), first, &bound)?;
        self.push("argmax.last".into(), Workload::Argmax(argmax::Shape::last(slices, RING)), &bound)
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
