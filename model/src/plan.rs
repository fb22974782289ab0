//! The forward pass as a list of dispatches.
//!
//! One builder serves decode (one token, `gemv`) and prefill (many tokens, `gemm`). Each decode
//! layer has buffers of its own: wgpu puts a barrier wherever a buffer's use changes, so reuse
//! would add barriers. Prefill's buffers are large and its dispatches long, so there two layers
//! take turns.

mod choice;
mod embed;

pub(crate) use choice::Logits;

use std::collections::HashMap;

use wgforge_codegen::{
    Variant, Workload,
    kernels::{
        attention, clear, decode_attention,
        gemv::{self, Epilogue},
        gemv_pair, norm, rope,
        slab::{self, Second},
    },
    types::{Act, Scale, stride},
};

use crate::{
    Result,
    backend::{Backend, Step, View},
    config::{LayerKind, TextConfig},
    fusion::Fusion,
    weights::{Layer, Part, Product, Site, Weights},
};

/// Slots of the ring of chosen tokens that the host reads behind.
pub(crate) const RING: u32 = 64;

/// Slots of a growing cache up to which contexts count as short: with room for more, attention is
/// configured for long ones. Plans are made again when a cache grows, so no token asks.
pub(crate) const SHORT: u32 = 4096;

/// The KV cache of a layer that owns one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cache {
    pub(crate) k: View,
    pub(crate) v: View,
    /// Slots of a ring; 0: one slot a position.
    pub(crate) ring: u32,
}

/// How many tokens a plan takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Exactly one.
    One,
    /// Up to this many.
    Many(u32),
}

/// A residual stream whose last addition is still to be made by the norm that follows:
/// `(x + RMS(y) * post) * scalar`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    /// Complete.
    Whole(View),
    /// To be completed. `added`: the element type of `y`.
    Pending { x: View, y: View, added: Act, post: View, scalar: View },
}

impl Stream {
    /// With the sum of a block's result still to be made by the norm that ends it.
    fn pending(x: View, (y, added): (View, Act), site: &Site) -> Self {
        Self::Pending { x, y, added, post: site.post, scalar: site.scalar }
    }

    /// The element type of what is still to be added.
    fn added(&self) -> Option<Act> {
        match self {
            Self::Whole(_) => None,
            Self::Pending { added, .. } => Some(*added),
        }
    }

    /// Whether what is to be added are sums of many workgroups.
    pub(crate) fn adds_sums(&self) -> bool {
        self.added().is_some_and(Act::is_sum)
    }

    /// Rows of `width` sums that are to be added up before.
    fn banks(&self, width: u32) -> u32 {
        match self {
            Self::Pending { y, added, .. } if added.is_sum() => {
                u32::try_from(y.bytes / added.row_bytes(width)).unwrap_or(1)
            }
            _ => 1,
        }
    }
}

/// What stands before a product: the stream is completed, scaled if `scaled`, and normalised by the
/// site's `pre` if `norm`.
#[derive(Debug, Clone, Copy)]
struct Before<'s> {
    stream: Stream,
    scaled: bool,
    norm: bool,
    site: &'s Site,
}

/// How a dispatch completes a stream.
struct Residual {
    /// The stream without the addition.
    x: View,
    /// With it.
    sum: Option<View>,
    bound: Vec<(&'static str, View)>,
}

/// What the host gathers per-layer embeddings into, where the device cannot bind their table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostRows {
    pub(crate) rows: View,
    pub(crate) scales: Option<View>,
}

/// Collects the steps of one plan.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) backend: &'a mut Backend,
    pub(crate) config: &'a TextConfig,
    pub(crate) weights: &'a Weights,
    /// By layer; only owners have one.
    pub(crate) caches: &'a [Option<Cache>],
    pub(crate) act: Act,
    pub(crate) kv: Act,
    pub(crate) rows: Rows,
    /// What a plan of one token joins; `None`: as the kernels suggest.
    pub(crate) fusion: Option<Fusion>,
    /// First position and number of tokens.
    pub(crate) run: View,
    pub(crate) ids: View,
    /// Buffers made so far, so that plans of the same rows share them.
    pub(crate) buffers: &'a mut HashMap<String, View>,
    pub(crate) steps: Vec<Step>,
    /// Some step adds to sums, which must be zero before.
    pub(crate) summing: bool,
    /// There is room for long contexts: more than [`SHORT`].
    pub(crate) deep: bool,
}

/// Which of a layer's products leave sums, each to the next in the stream, in this order.
#[derive(Debug, Clone, Copy)]
enum Sums {
    Attention,
    FeedForward,
    Ple,
}

/// Zeros for all sums.
fn zeros([a, b]: [View; 2]) -> clear::Shape {
    let words = |v: View| u32::try_from(v.bytes / 4).unwrap_or(u32::MAX);
    clear::Shape { a: words(a), b: words(b) }
}

/// Whether a product's sums can be those of many workgroups: of codes with row scales, or of floats with group
/// scales, which one binding must have with the weights.
fn joinable(p: &Product) -> bool {
    match p.scale {
        Scale::Row => p.input == Act::I8,
        Scale::Group => !p.input.is_int() && p.parts.iter().all(|part| part.both.is_some()),
        _ => false,
    }
}

fn u(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Builder<'_> {
    fn capacity(&self) -> u32 {
        match self.rows {
            Rows::One => 1,
            Rows::Many(n) => n,
        }
    }

    fn eps(&self) -> f64 {
        // The published value, not its f32 neighbour, so that shaders read as the config does.
        format!("{}", self.config.rms_norm_eps).parse().unwrap_or(1e-6)
    }

    /// The buffer `name` with a row of `columns` elements for each token.
    async fn vector(&mut self, name: &str, columns: u32, act: Act) -> Result<View> {
        let bytes = act.row_bytes(columns) * u64::from(self.capacity());
        self.named(name, bytes).await
    }

    async fn named(&mut self, name: &str, bytes: u64) -> Result<View> {
        let key = format!("{name}:{bytes}");
        if let Some(v) = self.buffers.get(&key) {
            return Ok(*v);
        }
        let view = self.backend.buffer(name, bytes).await?;
        self.buffers.insert(key, view);
        Ok(view)
    }

    /// The name of a layer's buffer.
    fn of_layer(&self, i: usize, what: &str) -> String {
        match self.rows {
            Rows::One => format!("{i}.{what}"),
            Rows::Many(_) => format!("{}.{what}", i % 2),
        }
    }

    /// Whether this plan has `joined` in place of what ends in `apart`.
    fn joins(&self, asked: fn(Fusion) -> bool, joined: &Workload, apart: &Workload) -> bool {
        self.rows == Rows::One
            && match self.fusion {
                None => self.backend.joins(joined, apart),
                Some(fusion) => asked(fusion) && self.backend.choose(joined.clone()).is_ok(),
            }
    }

    /// Whether `p` can follow another product in its dispatch: it takes codes, or floats where it has group
    /// scales, and `next`, which adds what it leaves, can make its norms itself.
    fn sums(&self, p: &Product, next: &gemv::Shape) -> Option<Second> {
        let fits = self.rows == Rows::One
            && p.parts.len() == 1
            && joinable(p)
            && self.fusion.is_none_or(|f| f.products)
            && self.backend.choose(Workload::Gemv(next.clone())).is_ok();
        let banks = next.norm.as_ref().map_or(1, |n| n.banks);
        fits.then_some(Second { rows: p.rows, format: p.format, scale: p.scale, banks })
    }

    /// Where layer `i` adds such sums: never in the buffer that it reads others from at that time.
    async fn sums_of(&mut self, i: usize, which: Sums, second: &Second) -> Result<View> {
        let (buffer, before) = slab::place_of_sums(u(i), which as u32, self.most_banks());
        self.summing = true;
        Ok(self.all_sums().await?[buffer].part(self.sum_row() * before, second.sum_bytes()))
    }

    /// Bytes of a row of the widest sums that the model's products leave.
    fn sum_row(&self) -> u64 {
        let products = self.weights.layers.iter().flat_map(|w| [&w.o, &w.down, &w.ple_proj]);
        let floats = products.into_iter().any(|p| p.scale.sums() == Act::Fixed);
        let act = if floats { Act::Fixed } else { Act::I32 };
        act.row_bytes(u(self.config.hidden))
    }

    /// Banks that the feed-forward blocks' sums have at most.
    fn most_banks(&self) -> u32 {
        let banks = |w: &Layer| slab::banks(w.down.columns, w.down.format, w.down.scale);
        self.weights.layers.iter().map(banks).max().unwrap_or(1)
    }

    async fn all_sums(&mut self) -> Result<[View; 2]> {
        let bytes = slab::sum_bytes(u(self.config.num_layers()), self.most_banks(), self.sum_row());
        Ok([self.named("sums_a", bytes).await?, self.named("sums_b", bytes).await?])
    }

    /// Makes all sums zero.
    pub(crate) async fn clear(&mut self) -> Result<()> {
        let [a, b] = self.all_sums().await?;
        self.push("clear".into(), Workload::Clear(zeros([a, b])), &[("a", a), ("b", b)])
    }

    fn push(&mut self, label: String, workload: Workload, bound: &[(&str, View)]) -> Result<()> {
        let variant = self.backend.choose(workload)?;
        let views = variant
            .bindings()
            .into_iter()
            .map(|name| {
                let found = bound.iter().find(|(n, _)| *n == name);
                found.map(|(_, v)| *v).unwrap_or_else(|| panic!("{label}: nothing bound to `{name}`"))
            })
            .collect();
        self.steps.push(Step { label, variant, views });
        Ok(())
    }

    fn product(
        &mut self,
        label: &str,
        p: &Product,
        epilogue: Epilogue,
        x: View,
        aux: Option<View>,
        out: (View, Act),
    ) -> Result<()> {
        let mut bound = vec![("run", self.run), ("x", x)];
        bound.extend(p.grids.map(|v| ("grids", v)));
        self.product_with(label, p, epilogue, None, bound, aux, out)
    }

    fn product_with(
        &mut self,
        label: &str,
        p: &Product,
        epilogue: Epilogue,
        norm: Option<norm::Shape>,
        input: Vec<(&'static str, View)>,
        aux: Option<View>,
        (out, out_act): (View, Act),
    ) -> Result<()> {
        for part in &p.parts {
            let shape = self.product_shape(p, part, epilogue, norm.clone(), out_act);
            let mut bound = vec![("w", part.weights), ("out", out)];
            bound.extend(&input);
            bound.extend(part.scales.map(|v| ("scales", v)));
            bound.extend(aux.map(|v| ("aux", v)));
            let workload = match self.rows {
                Rows::One => Workload::Gemv(shape),
                Rows::Many(_) => Workload::Gemm(shape),
            };
            self.push(label.to_owned(), workload, &bound)?;
        }
        Ok(())
    }

    fn product_shape(
        &self,
        p: &Product,
        part: &Part,
        epilogue: Epilogue,
        norm: Option<norm::Shape>,
        out: Act,
    ) -> gemv::Shape {
        gemv::Shape {
            rows: part.rows,
            total: p.rows,
            first: part.first,
            columns: p.columns,
            format: p.format,
            scale: p.scale,
            x: norm.as_ref().and_then(|n| n.out).unwrap_or(p.input),
            out,
            grids: p.gridded,
            epilogue,
            split_a: p.splits.0,
            split_b: p.splits.1,
            // Where nothing is capped the number must not tell equal shapes apart: databases
            // list them without.
            softcap: match epilogue {
                Epilogue::Softcap => self.config.softcap.map_or(0.0, f64::from),
                _ => 0.0,
            },
            norm,
            tops: 0,
        }
    }

    /// A product of the stream as `before` says; `names` are those of the two dispatches, of the
    /// buffer for the completed stream and of the one for the product's input. Returns the
    /// completed stream.
    async fn normed_product(
        &mut self,
        names: [String; 4],
        before: Before<'_>,
        p: &Product,
        epilogue: Epilogue,
        aux: Option<View>,
        out: (View, Act),
    ) -> Result<View> {
        let [norm_name, product_name, sum_name, input_name] = names;
        let (hidden, site) = (u(self.config.hidden), before.site);
        let Residual { x, sum, mut bound } = self.residual(before.stream, &sum_name).await?;
        let shape = norm::Shape { out: Some(p.input), y: self.act, ..self.norm_before(before, p) };
        // A matrix in parts would make the same norms once for each.
        let inner = self.norm_before(before, p);
        let joined = p.parts.len() == 1 && {
            let of = |norm| Workload::Gemv(self.product_shape(p, &p.parts[0], epilogue, norm, out.1));
            // Nobody else adds sums.
            before.stream.adds_sums() || self.joins(|f| f.norms, &of(Some(inner.clone())), &of(None))
        };
        if joined {
            bound.push(("site", site.all));
            self.product_with(&product_name, p, epilogue, Some(inner), bound, aux, out)?;
        } else {
            let h = self.vector(&input_name, hidden, p.input).await?;
            bound.extend([("post", site.post), ("pre", site.pre), ("scalar", site.scalar), ("out", h)]);
            bound.extend(p.grids.map(|v| ("grids", v)));
            self.push(norm_name, Workload::Norm(shape), &bound)?;
            self.product(&product_name, p, epilogue, h, aux, out)?;
        }
        Ok(sum.unwrap_or(x))
    }

    /// The norms that come first in the dispatch of `p`. What stays in a workgroup need not be f16.
    fn norm_before(&self, before: Before<'_>, p: &Product) -> norm::Shape {
        let added = before.stream.added();
        norm::Shape {
            width: u(self.config.hidden),
            residual: added.is_some(),
            y: added.unwrap_or(Act::F32),
            scaled: before.scaled && added.is_some(),
            norm: before.norm,
            out: Some(if p.input.is_int() { p.input } else { Act::F32 }),
            eps: self.eps(),
            banks: before.stream.banks(u(self.config.hidden)),
        }
    }

    /// What a dispatch that completes `stream` binds for that; `name` is that of the sum's buffer.
    async fn residual(&mut self, stream: Stream, name: &str) -> Result<Residual> {
        let (x, y) = match stream {
            Stream::Whole(x) => (x, None),
            Stream::Pending { x, y, .. } => (x, Some(y)),
        };
        let mut bound = vec![("run", self.run), ("x", x)];
        let mut sum = None;
        if let Some(y) = y {
            let completed = self.vector(name, u(self.config.hidden), Act::F32).await?;
            bound.extend([("y", y), ("sum", completed)]);
            sum = Some(completed);
        }
        Ok(Residual { x, sum, bound })
    }

    /// Two products of the stream as `before` says, `first` and then `second`, in one dispatch where
    /// the plan has that: `next` adds its sums. `names`: of the first's norm and its product, of the
    /// buffers for the completed stream, the product's input and its result, of the second product
    /// and of its result. Returns the completed stream and what is to be added to it.
    async fn products(
        &mut self,
        names: [String; 7],
        before: Before<'_>,
        (first, epilogue, aux): (&Product, Epilogue, Option<View>),
        second: &Product,
        sums: Option<(usize, Sums, gemv::Shape)>,
    ) -> Result<(View, (View, Act))> {
        let [norm_name, name, sum_name, input_name, between_name, second_name, out_name] = names;
        if let Some((layer, which, next)) = sums
            && let [part] = &first.parts[..]
            && joinable(first)
            && first.scale == second.scale
            && let Some(then) = self.sums(second, &next)
        {
            let norm = self.norm_before(before, first);
            let out = if second.input.is_int() { second.input } else { Act::F32 };
            let first_shape = self.product_shape(first, part, epilogue, Some(norm), out);
            let weights = (part.joined(first.scale), second.parts[0].joined(second.scale));
            let shape = gemv_pair::Shape { first: first_shape, second: then.clone() };
            let apart = self.product_shape(second, &second.parts[0], Epilogue::Store, None, self.act);
            let joined = Workload::GemvPair(shape);
            if self.joins(|f| f.products, &joined, &Workload::Gemv(apart)) {
                let Residual { x, sum, mut bound } = self.residual(before.stream, &sum_name).await?;
                let sums = self.sums_of(layer, which, &then).await?;
                bound.extend([("site", before.site.all), ("w", weights.0), ("out", sums)]);
                bound.push(("w2", weights.1));
                bound.extend(aux.map(|v| ("aux", v)));
                self.push(name, joined, &bound)?;
                return Ok((sum.unwrap_or(x), (sums, second.scale.sums())));
            }
        }
        let between = self.vector(&between_name, first.rows, second.input).await?;
        let names = [norm_name, name, sum_name, input_name];
        let into = (between, second.input);
        let x = self.normed_product(names, before, first, epilogue, aux, into).await?;
        let y = self.vector(&out_name, second.rows, self.act).await?;
        self.product(&second_name, second, Epilogue::Store, between, None, (y, self.act))?;
        Ok((x, (y, self.act)))
    }

    /// The shape of a product that adds what `before` leaves, sums in `banks`, to the stream first.
    fn adding(
        &self,
        p: &Product,
        before: &Product,
        epilogue: Epilogue,
        (scaled, norm): (bool, bool),
        out: Act,
        banks: u32,
    ) -> gemv::Shape {
        let x = if p.input.is_int() { p.input } else { Act::F32 };
        let (width, eps) = (u(self.config.hidden), self.eps());
        let y = before.scale.sums();
        let norm = norm::Shape { width, residual: true, y, scaled, norm, out: Some(x), eps, banks };
        self.product_shape(p, &p.parts[0], epilogue, Some(norm), out)
    }

    /// One layer. Returns the stream whose last addition the next norm makes.
    pub(crate) async fn layer(&mut self, i: usize, stream: Stream) -> Result<Stream> {
        let (w, c) = (&self.weights.layers[i], self.config);
        let act = self.act;
        let name = |b: &Self, what: &str| b.of_layer(i, what);

        let before = Before { stream, scaled: true, norm: true, site: &w.input };
        let (x, attended) = if let Some(done) = self.exchanged(i, w, before).await? {
            done
        } else {
            let n = name(self, "qkv");
            let qkv = self.vector(&n, w.qkv.rows, act).await?;
            let names = [format!("{i}.input_norm"), format!("{i}.qkv"), name(self, "x"), name(self, "h")];
            let x = self.normed_product(names, before, &w.qkv, Epilogue::Store, None, (qkv, act)).await?;
            (x, self.attention(i, w, qkv).await?)
        };
        let stream = Stream::pending(x, attended, &w.feedforward);

        let names = [
            format!("{i}.ffn_norm"),
            format!("{i}.gate_up"),
            name(self, "x1"),
            name(self, "h1"),
            name(self, "ffn"),
            format!("{i}.down"),
            name(self, "down"),
        ];
        let before = Before { stream, scaled: false, norm: true, site: &w.feedforward };
        let banks = slab::banks(w.down.columns, w.down.format, w.down.scale);
        let next = (w.ple_gate.parts.len() == 1).then(|| {
            self.adding(&w.ple_gate, &w.down, Epilogue::Ple, (false, false), w.ple_proj.input, banks)
        });
        let sums = next.map(|next| (i, Sums::FeedForward, next));
        let first = (&w.gate_up, Epilogue::Geglu, None);
        let (x1, down) = self.products(names, before, first, &w.down, sums).await?;

        // The per-layer gate reads the residual stream as it is.
        let ple = self.ple().await?;
        let row = Act::F32.row_bytes(u(c.ple_dim)) * u64::from(self.capacity());
        let ple = ple.part(row * i as u64, row);
        let names = [
            format!("{i}.ple_norm"),
            format!("{i}.ple_gate"),
            name(self, "x2"),
            name(self, "h2"),
            name(self, "ple_gate"),
            format!("{i}.ple_proj"),
            name(self, "ple_proj"),
        ];
        let stream = Stream::pending(x1, down, &w.ple);
        let before = Before { stream, scaled: false, norm: false, site: &w.ple };
        let sums = self.after(i).map(|next| (i, Sums::Ple, next));
        let first = (&w.ple_gate, Epilogue::Ple, Some(ple));
        let (x2, y) = self.products(names, before, first, &w.ple_proj, sums).await?;
        let next = self.weights.layers.get(i + 1).map_or(&self.weights.last, |next| &next.input);
        Ok(Stream::pending(x2, y, next))
    }

    /// The product that adds what layer `i` leaves, if it is in one piece.
    fn after(&self, i: usize) -> Option<gemv::Shape> {
        let w = self.weights;
        let before = &w.layers[i].ple_proj;
        let (p, epilogue, out) = match w.layers.get(i + 1) {
            Some(next) => (&next.qkv, Epilogue::Store, self.act),
            None => (&w.head, self.head_epilogue(), Act::F32),
        };
        (p.parts.len() == 1).then(|| self.adding(p, before, epilogue, (true, true), out, 1))
    }

    /// Norms, q, k, v, all of attention and the output projection in one dispatch, where the plan has that. Returns the
    /// completed stream and what is to be added to it.
    async fn exchanged(
        &mut self,
        i: usize,
        w: &Layer,
        before: Before<'_>,
    ) -> Result<Option<(View, (View, Act))>> {
        let ([part], Some(all)) = (&w.qkv.parts[..], self.projected(i, w)) else { return Ok(None) };
        let norm = self.norm_before(before, &w.qkv);
        let first = self.product_shape(&w.qkv, part, Epilogue::Store, Some(norm), self.act);
        let projects = Workload::DecodeAttention(all.clone());
        let o = Workload::Gemv(self.product_shape(&w.o, &w.o.parts[0], Epilogue::Store, None, self.act));
        let apart = [projects.clone(), Workload::Gemv(first.clone()), o.clone()];
        let joined = decode_attention::Shape { first: Some(first), ..all };
        let known = Workload::DecodeAttention(joined.clone());
        // Whoever left the projection apart, or these products, knows more than where all are joined was tuned.
        let exchanges = |apart| self.joins(|f| f.exchange, &known, apart);
        if !apart.iter().all(exchanges) || !self.joins(|f| f.products && f.attention, &projects, &o) {
            return Ok(None);
        }
        let name = self.of_layer(i, "x");
        let Residual { x, sum, mut bound } = self.residual(before.stream, &name).await?;
        bound.extend([("site", before.site.all), ("w", part.weights)]);
        bound.extend(part.scales.map(|v| ("scales", v)));
        bound.extend(self.attention_views(i, w));
        let attended = self.attend_and_project(i, w, joined, bound).await?;
        Ok(Some((sum.unwrap_or(x), attended)))
    }

    /// What attention of layer `i` binds besides its input and its output.
    fn attention_views(&self, i: usize, w: &Layer) -> Vec<(&'static str, View)> {
        let source = self.config.kv_source(i);
        let cache = self.caches[source].unwrap_or_else(|| panic!("layer {source} owns a cache"));
        let angles = self.weights.angles[usize::from(self.config.kind(i) == LayerKind::Full)];
        let mut bound = vec![("run", self.run), ("angles", angles), ("k", cache.k), ("v", cache.v)];
        bound.extend(w.o.grids.map(|g| ("grids", g)));
        bound
    }

    /// Rotation, cache and attention of layer `i` in one dispatch.
    fn attended(&self, i: usize, w: &Layer) -> decode_attention::Shape {
        let c = self.config;
        let source = c.kv_source(i);
        let full = c.kind(i) == LayerKind::Full;
        decode_attention::Shape {
            heads: u(c.heads),
            kv_heads: u(c.kv_heads(source)),
            dim: u(c.head_dim(i)),
            rotary: u(c.rope(i).rotated_pairs(c.head_dim(i))),
            window: if full { 0 } else { u(c.window) },
            ring: self.caches[source].map_or(0, |cache| cache.ring),
            append: c.owns_kv(i),
            qkv: self.act,
            kv: self.kv,
            out: w.o.input,
            eps: self.eps(),
            then: None,
            first: None,
            deep: false,
        }
    }

    /// The same with the output projection behind it, where that can be.
    fn projected(&self, i: usize, w: &Layer) -> Option<decode_attention::Shape> {
        let [_] = &w.gate_up.parts[..] else { return None };
        let next = self.adding(&w.gate_up, &w.o, Epilogue::Geglu, (false, true), w.down.input, 1);
        let then = self.sums(&w.o, &next)?;
        Some(decode_attention::Shape { then: Some(then), ..self.attended(i, w) })
    }

    /// As it is configured for the room there is. (Which plan is the better one is known of short contexts.)
    fn of_context(&self, s: decode_attention::Shape) -> Workload {
        Workload::DecodeAttention(decode_attention::Shape { deep: self.deep && s.window == 0, ..s })
    }

    /// Attention with the output projection. Returns the sums.
    async fn attend_and_project(
        &mut self,
        i: usize,
        w: &Layer,
        all: decode_attention::Shape,
        mut bound: Vec<(&'static str, View)>,
    ) -> Result<(View, Act)> {
        let then = all.then.clone().unwrap_or_else(|| panic!("layer {i} projects"));
        let w2 = w.o.parts[0].joined(w.o.scale);
        let sums = self.sums_of(i, Sums::Attention, &then).await?;
        bound.extend([("norms", w.head_norms), ("w2", w2), ("out", sums)]);
        self.attend(i, self.of_context(all), bound).await?;
        Ok((sums, w.o.scale.sums()))
    }

    /// Rotation, cache, attention and the output projection. Returns what is to be added to the
    /// stream.
    async fn attention(&mut self, i: usize, w: &Layer, qkv: View) -> Result<(View, Act)> {
        let c = self.config;
        let mut bound = self.attention_views(i, w);
        bound.push(("qkv", qkv));
        if let Some(all) = self.projected(i, w) {
            let apart = self.product_shape(&w.o, &w.o.parts[0], Epilogue::Store, None, self.act);
            let known = Workload::DecodeAttention(all.clone());
            if self.joins(|f| f.products && f.attention, &known, &Workload::Gemv(apart)) {
                return self.attend_and_project(i, w, all, bound).await;
            }
        }
        let joined = self.attended(i, w);
        let decode_attention::Shape { heads, kv_heads, dim, rotary, window, ring, .. } = joined;
        let apart = attention::Shape {
            heads,
            kv_heads,
            dim,
            window,
            ring,
            q: self.act,
            kv: self.kv,
            out: w.o.input,
            decode: self.rows == Rows::One,
        };
        let n = self.of_layer(i, "attention");
        let out = self.vector(&n, heads * dim, w.o.input).await?;
        bound.push(("out", out));
        let (known, joined) = (Workload::DecodeAttention(joined.clone()), self.of_context(joined));
        if self.joins(|f| f.attention, &known, &Workload::Attention(apart.clone())) {
            bound.push(("norms", w.head_norms));
            self.attend(i, joined, bound).await?;
        } else {
            self.rotate_and_attend(i, w, apart, rotary, bound).await?;
        }
        let n = self.of_layer(i, "o");
        let o = self.vector(&n, u(c.hidden), self.act).await?;
        self.product(&format!("{i}.o"), &w.o, Epilogue::Store, out, None, (o, self.act))?;
        Ok((o, self.act))
    }

    /// Rotation and the append to the cache, then attention.
    async fn rotate_and_attend(
        &mut self,
        i: usize,
        w: &Layer,
        apart: attention::Shape,
        rotary: u32,
        mut bound: Vec<(&'static str, View)>,
    ) -> Result<()> {
        let attention::Shape { heads, kv_heads, dim, ring, .. } = apart;
        let n = self.of_layer(i, "q");
        let q = self.vector(&n, heads * dim, self.act).await?;
        let shape = rope::Shape {
            heads,
            kv_heads: if self.config.owns_kv(i) { kv_heads } else { 0 },
            dim,
            rotary,
            qkv: self.act,
            q: self.act,
            kv: self.kv,
            ring,
            eps: self.eps(),
        };
        bound.extend([("q", q), ("q_norm", w.q_norm)]);
        bound.extend(w.k_norm.map(|v| ("k_norm", v)));
        self.push(format!("{i}.rope"), Workload::Rope(shape), &bound)?;

        self.attend(i, Workload::Attention(apart), bound).await
    }

    /// Attention, and what joins its key ranges where its configuration splits them.
    async fn attend(
        &mut self,
        i: usize,
        workload: Workload,
        mut bound: Vec<(&'static str, View)>,
    ) -> Result<()> {
        let variant = self.backend.choose(workload.clone())?;
        if let Variant::DecodeAttention { shape, config } = &variant
            && config.project.is_some()
        {
            let n = self.of_layer(i, "exchange");
            bound.push(("exchange", self.named(&n, shape.exchange_bytes(config)).await?));
        }
        let behind = variant.followers();
        for merge in &behind {
            let shape = match merge {
                Workload::AttentionMerge(shape) => Some(shape),
                Workload::MergeGemv(shape) => Some(&shape.merge),
                _ => None,
            };
            if let Some(shape) = shape {
                let n = self.of_layer(i, "partials");
                let partials = self.named(&n, shape.partial_bytes(self.capacity())).await?;
                bound.push(("partials", partials));
            }
        }
        self.push(format!("{i}.attention"), workload, &bound)?;
        for merge in behind {
            self.push(format!("{i}.attention_merge"), merge, &bound)?;
        }
        Ok(())
    }

    /// Makes a pending addition, so that the stream can be read; `scaled` as well. `name` gives it a
    /// buffer.
    pub(crate) async fn settle(&mut self, stream: Stream, name: &str, scaled: bool) -> Result<View> {
        let (x, y, post, scalar) = match stream {
            Stream::Whole(x) => return Ok(x),
            Stream::Pending { x, y, post, scalar, .. } => (x, y, post, scalar),
        };
        let sum = self.vector(name, u(self.config.hidden), Act::F32).await?;
        let shape = norm::Shape {
            width: u(self.config.hidden),
            residual: true,
            y: self.act,
            scaled,
            norm: false,
            out: None,
            eps: self.eps(),
            banks: 1,
        };
        let bound = [("x", x), ("y", y), ("post", post), ("sum", sum), ("scalar", scalar)];
        self.push(name.to_owned(), Workload::Norm(shape), &bound)?;
        Ok(sum)
    }

    /// Final norm and head.
    pub(crate) async fn head(&mut self, stream: Stream) -> Result<Logits> {
        let w = self.weights;
        let logits = self.vector("logits", u(self.config.vocab_size), Act::F32).await?;
        let epilogue = self.head_epilogue();
        let names = ["final_norm", "head", "last_x", "last_h"].map(str::to_owned);
        let before = Before { stream, scaled: true, norm: true, site: &w.last };
        self.normed_product(names, before, &w.head, epilogue, None, (logits, Act::F32)).await?;
        self.with_tops(logits).await
    }

    fn head_epilogue(&self) -> Epilogue {
        if self.config.softcap.is_some() { Epilogue::Softcap } else { Epilogue::Store }
    }
}

/// Bytes of a row of f32 residual stream.
pub(crate) fn stream_bytes(config: &TextConfig) -> u64 {
    u64::from(stride(u(config.hidden))) * 4
}
