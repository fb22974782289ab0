//! Looking inside: all logits, the residual stream of every layer.

use wgforge_codegen::types::stride;

use super::{Choice, Model, programs::Which, to_u32, to_usize};
use crate::{
    Error, Result,
    backend::{Step, View, Work},
    plan::{Stream, stream_bytes},
};

impl Model {
    /// Logits after the softcap for every token, `[tokens, vocab]` row-major, either as prefill
    /// does it or one token at a time. The sequence starts anew.
    ///
    /// # Errors
    /// Ids outside the vocabulary, more tokens than the context, a failing device.
    pub async fn logits(&mut self, tokens: &[u32], one_by_one: bool) -> Result<Vec<f32>> {
        self.check_tokens(tokens)?;
        self.reset();
        self.reserve(to_u32(tokens.len())).await?;
        let vocab = self.config.vocab_size;
        let row = stride(to_u32(vocab)) as usize;
        let mut all = Vec::with_capacity(tokens.len() * vocab);
        let pieces = if one_by_one {
            self.prepare_decode().await?;
            tokens.chunks(1)
        } else {
            self.prepare_full().await?;
            tokens.chunks(self.full_chunk() as usize)
        };
        for piece in pieces {
            let n = to_u32(piece.len());
            let view = if one_by_one {
                self.write_one(piece[0], Choice::Greedy)?;
                let Some(d) = &self.programs.decode else { unreachable!("decode was prepared") };
                self.backend.execute(&[Work::Run(&d.lower, 1), Work::Run(&d.upper, 1)], None)?;
                d.logits
            } else {
                self.write_many(piece, Which::Full)?;
                let Some((program, logits)) = &self.programs.full else { unreachable!("it was prepared") };
                self.backend.execute(&[Work::Run(program, n)], None)?;
                *logits
            };
            let bytes = self.backend.read(view.part(0, row as u64 * 4 * u64::from(n))).await?;
            for r in bytes.chunks_exact(row * 4) {
                all.extend(r.as_chunks::<4>().0[..vocab].iter().map(|b| f32::from_le_bytes(*b)));
            }
            self.position += n;
        }
        Ok(all)
    }

    async fn prepare_full(&mut self) -> Result<()> {
        if self.programs.full.is_some() {
            return Ok(());
        }
        let layers = self.config.num_layers();
        let host = self.host.as_ref().map(|h| h.many);
        let mut b = self.builder(Which::Full);
        let mut stream = Stream::Whole(b.embed(host).await?);
        for i in 0..layers {
            stream = b.layer(i, stream).await?;
        }
        let logits = b.head(stream).await?;
        let steps = std::mem::take(&mut b.steps);
        self.programs.full = Some((self.backend.prepare(steps).await?, logits.view));
        Ok(())
    }

    /// The residual stream before layer 0 and after every layer, `[layers + 1, tokens, hidden]`
    /// row-major. With `inject` (of the same shape) each layer is fed that stream instead of its
    /// own input. The sequence starts anew.
    ///
    /// # Errors
    /// As [`Model::logits`]; `inject` of another size.
    pub async fn trace(&mut self, tokens: &[u32], inject: Option<&[f32]>) -> Result<Vec<f32>> {
        self.check_tokens(tokens)?;
        self.reset();
        self.reserve(to_u32(tokens.len())).await?;
        let (layers, hidden, t) = (self.config.num_layers(), self.config.hidden, tokens.len());
        let size = (layers + 1) * t * hidden;
        if let Some(got) = inject.map(<[f32]>::len).filter(|n| *n != size) {
            return Err(Error::Usage(format!(
                "the injected `hidden` has {got} values; {layers}+1 layers of {t} tokens of {hidden} are {size}"
            )));
        }
        let mut all = vec![0.0f32; size];
        for (c, piece) in tokens.chunks(self.chunk as usize).enumerate() {
            let start = c * self.chunk as usize;
            self.write_many(piece, Which::Many)?;
            let host = self.host.as_ref().map(|h| h.many);
            let mut b = self.builder(Which::Many);
            let mut x = b.embed(host).await?;
            let steps = std::mem::take(&mut b.steps);
            self.run_now(steps, piece.len()).await?;
            self.collect(x, &mut all, 0, start, piece.len(), t).await?;
            for i in 0..layers {
                if let Some(given) = inject {
                    self.write_stream(x, &given[(i * t + start) * hidden..][..piece.len() * hidden]);
                }
                let mut b = self.builder(Which::Many);
                let stream = b.layer(i, Stream::Whole(x)).await?;
                x = b.settle(stream, &format!("hidden{}", i % 2), true).await?;
                let steps = std::mem::take(&mut b.steps);
                self.run_now(steps, piece.len()).await?;
                self.collect(x, &mut all, i + 1, start, piece.len(), t).await?;
            }
            self.position += to_u32(piece.len());
        }
        Ok(all)
    }

    async fn run_now(&mut self, steps: Vec<Step>, tokens: usize) -> Result<()> {
        let program = self.backend.prepare(steps).await?;
        self.backend.execute(&[Work::Run(&program, to_u32(tokens))], None)?;
        Ok(())
    }

    async fn collect(
        &mut self,
        x: View,
        all: &mut [f32],
        layer: usize,
        start: usize,
        n: usize,
        t: usize,
    ) -> Result<()> {
        let (hidden, row) = (self.config.hidden, to_usize(stream_bytes(&self.config)));
        let bytes = self.backend.read(x.part(0, (row * n) as u64)).await?;
        for (i, r) in bytes.chunks_exact(row).enumerate() {
            let to = &mut all[(layer * t + start + i) * hidden..][..hidden];
            for (v, b) in to.iter_mut().zip(r.as_chunks::<4>().0) {
                *v = f32::from_le_bytes(*b);
            }
        }
        Ok(())
    }

    fn write_stream(&mut self, x: View, values: &[f32]) {
        let (hidden, row) = (self.config.hidden, to_usize(stream_bytes(&self.config)) / 4);
        let mut padded = vec![0.0f32; values.len() / hidden * row];
        for (to, from) in padded.chunks_exact_mut(row).zip(values.chunks_exact(hidden)) {
            to[..hidden].copy_from_slice(from);
        }
        self.backend.write(x, bytemuck::cast_slice(&padded));
    }
}
