//! Shapes to render, check and snapshot: those of Gemma 4 E2B, and odd ones that fit no tile.

use std::collections::BTreeMap;

use crate::{
    Workload,
    kernels::{
        argmax, attention, attention_merge, clear, decode_attention, gather,
        gemv::{self, Epilogue},
        gemv_pair, merge_gemv, norm, ple_mix, rope, sample,
        slab::{Second, banks, sum_bytes},
        topk,
    },
    types::{Act, Format, Scale},
};

/// A matrix product without grids or epilogue.
fn product(rows: u32, columns: u32, format: Format, scale: Scale, x: Act, out: Act) -> gemv::Shape {
    gemv::Shape {
        rows,
        total: rows,
        first: 0,
        columns,
        format,
        scale,
        x,
        out,
        grids: x.is_int(),
        epilogue: Epilogue::Store,
        split_a: 0,
        split_b: 0,
        softcap: 0.0,
        norm: None,
        tops: 0,
    }
}

/// The matrix products of one width: `(hidden, ffn, ple, q + k + v rows, q rows, vocabulary)`.
fn products(h: u32, ffn: u32, ple: u32, q: u32, kv: u32, vocab: u32) -> Vec<gemv::Shape> {
    use Format::{Bf16, F16, F32, I2, I4, I8};
    let mut all = Vec::new();
    // Static grids: the published mobile layout.
    for (format, act) in [(I4, Act::F32), (I4, Act::F16), (I2, Act::F32), (I2, Act::F16)] {
        let qkv = gemv::Shape {
            split_a: q,
            split_b: q + kv,
            ..product(q + 2 * kv, h, format, Scale::Row, Act::I8, act)
        };
        all.push(qkv);
        // Layers that share another's keys and values have queries only.
        all.push(product(q, h, format, Scale::Row, Act::I8, act));
        all.push(product(h, q, format, Scale::Row, Act::I8, act));
        all.push(gemv::Shape {
            epilogue: Epilogue::Geglu,
            ..product(ffn, h, format, Scale::Row, Act::I8, Act::I8)
        });
        all.push(product(h, ffn, format, Scale::Row, Act::I8, act));
    }
    all.push(gemv::Shape { epilogue: Epilogue::Ple, ..product(ple, h, I8, Scale::Row, Act::I8, Act::I8) });
    all.push(product(h, ple, I8, Scale::Row, Act::I8, Act::F32));
    all.push(product(h, ple, I8, Scale::Row, Act::I8, Act::F16));
    all.push(gemv::Shape {
        epilogue: Epilogue::Residual,
        ..product(h, ple, I8, Scale::Row, Act::I8, Act::F32)
    });
    // Float activations: bf16 and f16 as stored, int8 and int4 quantised at load, the int2 head.
    for (format, scale) in [
        (F32, Scale::None),
        (Bf16, Scale::None),
        (F16, Scale::None),
        (I8, Scale::Group),
        (I4, Scale::Group),
        (I2, Scale::Row),
    ] {
        for act in [Act::F32, Act::F16] {
            all.push(product(h, ffn, format, scale, act, act));
            all.push(gemv::Shape { epilogue: Epilogue::Geglu, ..product(ffn, h, format, scale, act, act) });
            all.push(gemv::Shape { epilogue: Epilogue::Ple, ..product(ple, h, format, scale, act, act) });
            all.push(gemv::Shape {
                epilogue: Epilogue::Softcap,
                softcap: 30.0,
                ..product(vocab, h, format, scale, act, Act::F32)
            });
            // What a checkpoint quantised at load has besides.
            if format == I4 {
                let qkv = product(q + 2 * kv, h, format, scale, act, act);
                all.push(gemv::Shape { split_a: q, split_b: q + kv, ..qkv });
                for (rows, columns) in [(q, h), (h, q), (h, ple)] {
                    all.push(product(rows, columns, format, scale, act, act));
                }
            }
        }
    }
    all.iter_mut().for_each(fit);
    all
}

/// A matrix over the smallest binding limit is split by rows; its first part stands for all.
fn fit(s: &mut gemv::Shape) {
    let pairs = if s.epilogue == Epilogue::Geglu { 2 } else { 1 };
    let most = (128 << 20) / (s.format.row_bytes(s.columns) * pairs);
    s.rows = s.rows.min(u32::try_from(most).unwrap_or(u32::MAX) / 64 * 64);
}

/// Zeros for the sums of all layers: of codes in four banks, or, which are as many words, two each of floats in one.
fn zeros(layers: u32, h: u32) -> clear::Shape {
    let words = u32::try_from(sum_bytes(layers, 4, Act::I32.row_bytes(h)) / 4).unwrap_or(u32::MAX);
    clear::Shape { a: words, b: words }
}

/// Everything but the matrix products.
fn others(h: u32, heads: u32, kv_heads: u32, dim: u32, ple: u32, layers: u32, vocab: u32) -> Vec<Workload> {
    let mut all = Vec::new();
    let eps = 1e-6;
    let sums = zeros(layers, h);
    for (format, scale) in [
        (Format::I2, Scale::Row),
        (Format::I4, Scale::Group),
        (Format::I8, Scale::Group),
        (Format::Bf16, Scale::None),
        (Format::F32, Scale::None),
    ] {
        let rows = vocab.min(16_384);
        all.push(Workload::Gather(gather::Shape {
            rows,
            columns: h,
            format,
            scale,
            first: 7,
            by_slot: false,
            multiplier: 39.2,
        }));
    }
    all.push(Workload::Gather(gather::Shape {
        rows: 512,
        columns: layers * ple,
        format: Format::I4,
        scale: Scale::Parts(layers),
        first: 0,
        by_slot: true,
        multiplier: f64::from(ple).sqrt(),
    }));
    for context in [Act::F32, Act::F16] {
        let apart = ple_mix::Shape {
            layers,
            dim: ple,
            capacity: 512,
            context,
            scale: f64::from(h).powf(-0.5),
            eps,
            gather: None,
            zeros: None,
        };
        for (format, scale, by_slot, zeros) in [
            (Format::I4, Scale::Parts(layers), false, Some(sums.clone())),
            (Format::I4, Scale::Parts(layers), true, Some(sums.clone())),
            (Format::I4, Scale::Group, false, None),
        ] {
            let (columns, multiplier) = (layers * ple, f64::from(ple).sqrt());
            let rows = if by_slot { 1 } else { vocab.min(16_384) };
            let first = if by_slot { 0 } else { 7 };
            let gather = gather::Shape { rows, columns, format, scale, first, by_slot, multiplier };
            let joined = ple_mix::Shape { capacity: 1, gather: Some(gather), zeros, ..apart.clone() };
            all.push(Workload::PleMix(joined));
        }
        all.push(Workload::PleMix(apart));
    }
    for y in [Act::F32, Act::F16] {
        for out in [Some(Act::F32), Some(Act::F16), Some(Act::I8), None] {
            for residual in [false, true] {
                for norm in [false, true] {
                    if (residual || out.is_some()) && (out.is_some() || !norm) {
                        // The scalar stands at a layer's end only.
                        for scaled in [false, true] {
                            if !scaled || residual && norm {
                                all.push(Workload::Norm(norm::Shape {
                                    width: h,
                                    residual,
                                    y,
                                    scaled,
                                    norm,
                                    out,
                                    eps,
                                    banks: 1,
                                }));
                            }
                        }
                    }
                }
            }
        }
    }
    for (full, kv_own) in [(false, true), (true, true), (false, false), (true, false)] {
        let dim = if full { 2 * dim } else { dim };
        let ring = if full { 0 } else { 1024 };
        for (act, kv) in [(Act::F32, Act::F32), (Act::F32, Act::F16), (Act::F16, Act::F16)] {
            let kv_heads_here = if kv_own { kv_heads } else { 0 };
            all.push(Workload::Rope(rope::Shape {
                heads,
                kv_heads: kv_heads_here,
                dim,
                rotary: if full { dim / 8 } else { dim / 2 },
                qkv: act,
                q: act,
                kv,
                ring,
                eps,
            }));
            let second = Second { rows: h, format: Format::I4, scale: Scale::Row, banks: 1 };
            let floats = Second { scale: Scale::Group, ..second.clone() };
            for (out, then) in [(act, None), (act, Some(floats)), (Act::I8, None), (Act::I8, Some(second))] {
                all.push(Workload::DecodeAttention(decode_attention::Shape {
                    heads,
                    kv_heads,
                    dim,
                    rotary: if full { dim / 8 } else { dim / 2 },
                    window: if full { 0 } else { 512 },
                    ring,
                    append: kv_own,
                    qkv: act,
                    kv,
                    out,
                    eps,
                    then,
                    first: None,
                    deep: false,
                }));
            }
            if full
                && kv_own
                && let Some(Workload::DecodeAttention(last)) = all.last().cloned()
            {
                all.push(Workload::DecodeAttention(decode_attention::Shape { deep: true, ..last }));
            }
            // Attention does not know whose keys it reads.
            for decode in [false, true].into_iter().filter(|_| kv_own) {
                for out in [act, Act::I8] {
                    let window = if full { 0 } else { 512 };
                    all.push(Workload::Attention(attention::Shape {
                        heads,
                        kv_heads,
                        dim,
                        window,
                        ring,
                        q: act,
                        kv,
                        out,
                        decode,
                    }));
                }
            }
        }
        for out in [Act::F32, Act::F16, Act::I8].into_iter().filter(|_| kv_own) {
            let merge = attention_merge::Shape { heads, dim, splits: 16, out };
            // Words of two bits hold more columns than a small head has.
            for format in [Format::I4, Format::I8, Format::I2] {
                if out != Act::F16 && dim.is_multiple_of(format.piece().1) {
                    let scale = if out == Act::I8 { Scale::Row } else { Scale::Group };
                    let second = Second { rows: h, format, scale, banks: 1 };
                    all.push(Workload::MergeGemv(merge_gemv::Shape { merge: merge.clone(), second }));
                }
            }
            all.push(Workload::AttentionMerge(merge));
        }
    }
    all.push(Workload::Clear(sums));
    all.push(Workload::Argmax(argmax::Shape::first(vocab)));
    all.push(Workload::Argmax(argmax::Shape::last(vocab.div_ceil(1024), 64)));
    all.push(Workload::Argmax(argmax::Shape::search(vocab, gemv::TOPS, 64)));
    all.extend(topk::Shape::rounds(vocab, 64).into_iter().map(Workload::Topk));
    all.push(Workload::Sample(sample::Shape { n: 64, ring: 64 }));
    all
}

/// The products of a decoded token with the norms that come before them. Their input then stays
/// in f32 where it is no code; what the residual adds is of the type of the activations.
fn normed(products: &[gemv::Shape]) -> Vec<gemv::Shape> {
    let width = products[0].columns;
    let inner = products.iter().find(|s| s.epilogue == Epilogue::Geglu).map_or(0, |s| s.rows);
    let mut all = Vec::new();
    for s in products.iter().filter(|s| s.columns == width && s.scale != Scale::None) {
        let (norm, scaled) = match s.epilogue {
            Epilogue::Ple => (false, false),
            Epilogue::Geglu => (true, false),
            _ => (true, true),
        };
        let x = if s.x.is_int() { Act::I8 } else { Act::F32 };
        let banks = banks(inner, s.format, s.scale);
        let sums = s.scale.sums();
        for (residual, y) in [(true, Act::F32), (true, Act::F16), (true, sums), (false, Act::F32)] {
            let wanted = match y {
                // Sums of the kind that products with such scales leave.
                _ if y.is_sum() => s.epilogue != Epilogue::Residual,
                _ if residual => s.out == y || !matches!(s.epilogue, Epilogue::Store),
                // Only whole streams, which come from the embedding, want no addition.
                _ => s.epilogue == Epilogue::Store,
            };
            let scaled = scaled && residual;
            // The per-layer gate adds what the feed-forward block leaves.
            let banks = if y.is_sum() && s.epilogue == Epilogue::Ple { banks } else { 1 };
            let norm = norm::Shape { width, residual, y, scaled, norm, out: Some(x), eps: 1e-6, banks };
            let shape = gemv::Shape { x, norm: Some(norm), ..s.clone() };
            // The head may leave the largest of each workgroup's logits.
            let whole = shape.rows == shape.total;
            let tops =
                (whole && shape.softcap > 0.0).then(|| gemv::Shape { tops: gemv::TOPS, ..shape.clone() });
            for shape in [shape].into_iter().chain(tops) {
                if wanted && !all.contains(&shape) {
                    all.push(shape);
                }
            }
        }
    }
    all
}

/// Those of them that make codes or floats for another product, with that product.
fn pairs(normed: &[gemv::Shape]) -> Vec<Workload> {
    let paired = |s: &&gemv::Shape| matches!(s.epilogue, Epilogue::Geglu | Epilogue::Ple);
    let joined = normed.iter().filter(paired).filter(|s| match s.scale {
        // int8 rows of the wider layers are too much for a workgroup of the smallest devices.
        Scale::Group => s.x == Act::F32 && s.out == Act::F32 && (s.format == Format::I4 || s.rows <= 6144),
        _ => s.x == Act::I8 && s.out == Act::I8,
    });
    let pair = |first: &gemv::Shape| {
        let banks =
            if first.epilogue == Epilogue::Geglu { banks(first.rows, first.format, first.scale) } else { 1 };
        let second = Second { rows: first.columns, format: first.format, scale: first.scale, banks };
        Workload::GemvPair(gemv_pair::Shape { first: first.clone(), second })
    };
    joined.map(pair).collect()
}

/// Where `all` have a mix of per-layer inputs that reads a table with group scales: the same, clearing sums of floats.
fn float_zeros(h: u32, layers: u32, all: &[Workload]) -> Vec<Workload> {
    let of_group = |g: &gather::Shape| g.scale == Scale::Group;
    let mixes = all.iter().filter_map(|w| match w {
        Workload::PleMix(s) if s.gather.as_ref().is_some_and(of_group) => {
            Some(Workload::PleMix(ple_mix::Shape { zeros: Some(zeros(layers, h)), ..s.clone() }))
        }
        _ => None,
    });
    mixes.collect()
}

/// Every kernel at the shapes of Gemma 4 E2B, in all formats.
pub fn e2b() -> Vec<Workload> {
    let mut all = others(1536, 8, 1, 256, 256, 35, 262_144);
    let (sliding, full) =
        (products(1536, 6144, 256, 2048, 256, 262_144), products(1536, 12_288, 256, 4096, 512, 262_144));
    for products in [&sliding, &full] {
        let normed = normed(products);
        all.extend(pairs(&normed));
        all.extend(normed.into_iter().map(Workload::Gemv));
    }
    for s in sliding.into_iter().chain(full) {
        all.push(Workload::Gemv(s.clone()));
        all.push(Workload::Gemm(s));
    }
    all.extend(float_zeros(1536, 35, &all));
    all.dedup();
    all
}

/// Attention of E2B that makes q, k and v itself and goes on to the output projection: for devices
/// with as many bindings, where somebody has tuned it.
pub fn exchanging() -> Vec<Workload> {
    let all = e2b();
    // Codes from norms, of a whole stream or of one that sums are added to.
    let makes = |s: &decode_attention::Shape, f: &gemv::Shape| {
        let norms = f.norm.as_ref().is_some_and(|n| !n.residual || n.y == Act::I32);
        norms && f.rows == s.slots() * s.dim && (f.x, f.out, f.format) == (Act::I8, s.qkv, Format::I4)
    };
    let attends = |w: &Workload| match w {
        Workload::DecodeAttention(s) if s.then.is_some() && s.out == Act::I8 && !s.deep => Some(s.clone()),
        _ => None,
    };
    let with_rows = |s: decode_attention::Shape| {
        let firsts = all.iter().filter_map(|w| match w {
            Workload::Gemv(f) if makes(&s, f) => Some(f.clone()),
            _ => None,
        });
        let firsts: Vec<gemv::Shape> = firsts.collect();
        firsts
            .into_iter()
            .map(move |f| Workload::DecodeAttention(decode_attention::Shape { first: Some(f), ..s.clone() }))
    };
    all.iter().filter_map(attends).flat_map(with_rows).collect()
}

/// The same kernels at shapes that are no multiple of 4, 32 or any tile.
pub fn odd() -> Vec<Workload> {
    let mut all = others(150, 6, 2, 24, 20, 3, 1003);
    // A table of floats, as a small checkpoint has it.
    let of_floats = all.iter().find_map(|w| match w {
        Workload::PleMix(s) if s.zeros.is_none() => {
            let floats = |g: gather::Shape| gather::Shape { format: Format::Bf16, scale: Scale::None, ..g };
            s.gather
                .clone()
                .map(|g| Workload::PleMix(ple_mix::Shape { gather: Some(floats(g)), ..s.clone() }))
        }
        _ => None,
    });
    all.extend(of_floats);
    let (small, tiny) = (products(150, 97, 20, 144, 48, 1003), products(33, 1, 4, 8, 4, 5));
    // The norms are the same before all products, so some of them will do.
    for products in [&small, &tiny] {
        let normed = normed(products);
        all.extend(pairs(&normed));
        all.extend(normed.into_iter().step_by(4).map(Workload::Gemv));
    }
    for s in small.into_iter().chain(tiny) {
        all.push(Workload::Gemv(s.clone()));
        all.push(Workload::Gemm(s));
    }
    all.extend(float_zeros(150, 3, &all));
    all
}

/// Of each kernel the first shape of a list and every `one_in`-th after it, for devices that compile slowly.
pub fn thinned(shapes: Vec<Workload>, one_in: usize) -> Vec<Workload> {
    let mut seen = BTreeMap::new();
    let picked = |w: &Workload| {
        let count = seen.entry(w.kernel()).or_insert(0usize);
        *count += 1;
        (*count - 1).is_multiple_of(one_in)
    };
    shapes.into_iter().filter(picked).collect()
}
