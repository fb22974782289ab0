//! A checkpoint's weights in the backend's memory, named by what they do.

use wgforge_codegen::{
    kernels::rope::angle_table,
    types::{Act, Format, Scale, round_up, stride},
};

use crate::{
    Error, Result,
    backend::{Backend, Packed, View},
    checkpoint::{Checkpoint, Grids, Linear},
    config::TextConfig,
    pack::{Matrix, WeightMode},
};

/// A matrix in parts that each fit a binding, with everything its products need to know.
#[derive(Debug)]
pub(crate) struct Product {
    pub(crate) parts: Vec<Part>,
    /// Results of the whole matrix.
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    pub(crate) format: Format,
    pub(crate) scale: Scale,
    /// Element type the product reads: codes where there is a static input grid.
    pub(crate) input: Act,
    /// There is a static output grid.
    pub(crate) gridded: bool,
    /// `[input, output 0, 1, 2, next input]`, when any of them exists.
    pub(crate) grids: Option<View>,
    /// First row of the second and third stacked matrix.
    pub(crate) splits: (u32, u32),
    /// What is in `grids`, or zeros.
    row: [f32; 8],
    /// Scales of the stored rows of a product of codes.
    row_scales: Vec<f32>,
}

/// What the norms before a product need, in one range as [`gemv::Shape::norm`] lays it out:
/// a kernel binds all of it, or each part. Scales are there too: those of the product that ends the
/// block before, for plans in which its sums arrive unscaled, and those of the product that follows,
/// for plans that join it with another.
///
/// [`gemv::Shape::norm`]: wgforge_codegen::kernels::gemv::Shape::norm
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site {
    pub(crate) all: View,
    /// Weights of the norm that ends the block before; zeros before the first.
    pub(crate) post: View,
    /// Weights of the norm that begins this block; zeros where there is none.
    pub(crate) pre: View,
    /// Factor of the sum; 1 where there is none.
    pub(crate) scalar: View,
}

/// Rows of a matrix that fit one binding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) weights: View,
    pub(crate) scales: Option<View>,
    /// Both in one range, where a binding can have it.
    pub(crate) both: Option<View>,
    /// First result and number of results.
    pub(crate) first: u32,
    pub(crate) rows: u32,
}

impl Part {
    /// What a kernel binds that joins products: group scales lie behind their weights.
    pub(crate) fn joined(&self, scale: Scale) -> View {
        match (scale, self.both) {
            (Scale::Group, Some(both)) => both,
            _ => self.weights,
        }
    }
}

/// A table in parts that each fit a binding, or kept by the host.
#[derive(Debug)]
pub(crate) struct TableParts {
    pub(crate) parts: Vec<Part>,
    pub(crate) columns: u32,
    pub(crate) format: Format,
    pub(crate) scale: Scale,
    /// The host gathers the rows, because the device cannot bind the table.
    pub(crate) on_host: bool,
}

/// Weights of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) qkv: Product,
    pub(crate) o: Product,
    pub(crate) gate_up: Product,
    pub(crate) down: Product,
    pub(crate) ple_gate: Product,
    pub(crate) ple_proj: Product,
    /// Before `qkv`: ends the layer before.
    pub(crate) input: Site,
    /// Before `gate_up`: ends attention.
    pub(crate) feedforward: Site,
    /// Before `ple_gate`: ends the feed-forward block.
    pub(crate) ple: Site,
    pub(crate) q_norm: View,
    pub(crate) k_norm: Option<View>,
    /// `q_norm` and, where there is one, `k_norm` behind it.
    pub(crate) head_norms: View,
}

/// All weights of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) layers: Vec<Layer>,
    pub(crate) embed: TableParts,
    pub(crate) ple_table: TableParts,
    pub(crate) ple_projection: Product,
    pub(crate) ple_norm: View,
    /// Before `ple_projection`, which has grids only.
    pub(crate) embedding: Site,
    /// Before `head`: ends the last layer.
    pub(crate) last: Site,
    pub(crate) head: Product,
    /// Rotation tables for sliding and full layers.
    pub(crate) angles: [View; 2],
    /// Bytes of matrices read for every decoded token.
    pub(crate) bytes_per_token: u64,
}

/// What ends a block, for the site that follows it.
struct End {
    /// Weights of its norm.
    post: Vec<f32>,
    /// Factor of the sum.
    scalar: f32,
    /// What a sum of codes of its last product counts for, by row, and the product's output grid;
    /// empty where there are no codes.
    scales: Vec<f32>,
    grid: f32,
}

impl End {
    fn of(norm: &[f32], scalar: f32, last: &Linear) -> Self {
        let (input, grid) = last.grids.map_or((0.0, 0.0), |g| (g.input, g.output));
        let scales = last.row_scale.iter().flat_map(|s| s.iter()).map(|s| input * s).collect();
        Self { post: norm.to_vec(), scalar, scales, grid }
    }
}

/// Loads matrices and vectors into a backend.
struct Loader<'b> {
    backend: &'b mut Backend,
    mode: WeightMode,
    act: Act,
    progress: &'b mut dyn FnMut(u64),
    bytes_per_token: u64,
}

impl Weights {
    /// Loads everything; `progress` is told bytes as they go.
    pub(crate) async fn load(
        checkpoint: &Checkpoint,
        backend: &mut Backend,
        mode: WeightMode,
        act: Act,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self> {
        let config = checkpoint.config();
        let mut l = Loader { backend, mode, act, progress, bytes_per_token: 0 };
        let embed_table = checkpoint.embed()?;
        let head = checkpoint.head()?;
        // The mobile layout stores the tied embedding twice; one copy serves both.
        let shared = head.row_scale.as_deref() == embed_table.scale.as_ref().map(|(s, _)| &s[..])
            && embed_table.scale.as_ref().is_none_or(|(_, n)| *n == 1)
            && head.data.same(&embed_table.data)?;
        let embed = l.table(&Matrix::table(embed_table, mode), false).await?;
        let head = if shared {
            l.product_on(head, &embed.parts).await?
        } else {
            l.product(vec![head], None, false).await?
        };
        let ple_table = l.table(&Matrix::table(checkpoint.ple_table()?, mode), true).await?;
        let ple_projection = l.product(vec![checkpoint.ple_projection()?], None, false).await?;
        let ple_norm = l.vector(&checkpoint.ple_projection_norm()?).await?;
        let embedding = l.site(None, None, config.hidden, &ple_projection).await?;
        let mut layers = Vec::with_capacity(config.num_layers());
        // What ends a layer stands before what begins the next.
        let mut before = None;
        for i in 0..config.num_layers() {
            let (layer, end) = l.layer(checkpoint, i, before).await?;
            layers.push(layer);
            before = Some(end);
        }
        let last = l.site(before, Some(&checkpoint.final_norm()?), config.hidden, &head).await?;
        let angles = [
            l.angles(config, crate::config::LayerKind::Sliding).await?,
            l.angles(config, crate::config::LayerKind::Full).await?,
        ];
        let bytes_per_token = l.bytes_per_token;
        backend.finish_uploads().await?;
        Ok(Self {
            layers,
            embed,
            ple_table,
            ple_projection,
            ple_norm,
            embedding,
            last,
            head,
            angles,
            bytes_per_token,
        })
    }
}

impl Loader<'_> {
    /// Layer `i`, and what ends it: `before` is what ended the one before.
    async fn layer(
        &mut self,
        checkpoint: &Checkpoint,
        i: usize,
        before: Option<End>,
    ) -> Result<(Layer, End)> {
        let w = checkpoint.layer(i)?;
        let hidden = w.input_norm.len();
        let down_in = w.down.grids.map_or(0.0, |g| g.input);
        let proj_in = w.ple_proj.grids.map_or(0.0, |g| g.input);
        let mut qkv = vec![w.q];
        qkv.extend(w.k);
        qkv.extend(w.v);
        // One range serves kernels that bind both norms and kernels that bind each: rows are padded
        // to 256 bytes, the most a binding's offset must be a multiple of.
        let mut norms = padded(&w.q_norm);
        let q_bytes = norms.len() as u64 * 4;
        norms.extend(w.k_norm.as_deref().map(padded).unwrap_or_default());
        let head_norms = self.backend.constant(&norms).await?;
        let qkv = self.product(qkv, None, false).await?;
        let gate_up = self.product(vec![w.gate, w.up], Some(down_in), true).await?;
        let ple_gate = self.product(vec![w.ple_gate], Some(proj_in), false).await?;
        let attention = End::of(&w.post_attention_norm, 1.0, &w.o);
        let feedforward = End::of(&w.post_feedforward_norm, 1.0, &w.down);
        let end = End::of(&w.post_ple_norm, w.scalar, &w.ple_proj);
        let layer = Layer {
            input: self.site(before, Some(&w.input_norm), hidden, &qkv).await?,
            feedforward: self.site(Some(attention), Some(&w.pre_feedforward_norm), hidden, &gate_up).await?,
            ple: self.site(Some(feedforward), None, hidden, &ple_gate).await?,
            qkv,
            o: self.product(vec![w.o], None, false).await?,
            gate_up,
            down: self.product(vec![w.down], None, false).await?,
            ple_gate,
            ple_proj: self.product(vec![w.ple_proj], None, false).await?,
            q_norm: head_norms.part(0, q_bytes),
            k_norm: w.k_norm.is_some().then(|| head_norms.part(q_bytes, head_norms.bytes - q_bytes)),
            head_norms,
        };
        Ok((layer, end))
    }

    /// What stands before `product`: the norm and the factor that end a block, and the norm that
    /// begins the next.
    async fn site(
        &mut self,
        end: Option<End>,
        pre: Option<&[f32]>,
        hidden: usize,
        product: &Product,
    ) -> Result<Site> {
        let zeros = vec![0.0; hidden];
        let start = || End { post: zeros.clone(), scalar: 1.0, scales: Vec::new(), grid: 0.0 };
        let end = end.unwrap_or_else(start);
        let (mut words, bytes) = (padded(&end.post), Act::F32.row_bytes(to_u32(hidden)));
        words.extend(padded(pre.unwrap_or(&zeros)));
        words.extend(padded(&[end.scalar, end.grid]));
        words.extend(padded(&product.row));
        let from = words.len();
        words.extend(padded(&end.scales));
        words.resize(from + stride(to_u32(hidden)) as usize, 0);
        words.extend(padded(&product.row_scales));
        let all = self.backend.constant(&words).await?;
        Ok(Site {
            all,
            post: all.part(0, bytes),
            pre: all.part(bytes, bytes),
            scalar: all.part(2 * bytes, Act::F32.row_bytes(1)),
        })
    }

    /// A vector of f32, padded to whole rows.
    async fn vector(&mut self, values: &[f32]) -> Result<View> {
        self.backend.constant(&padded(values)).await
    }

    async fn angles(&mut self, config: &TextConfig, kind: crate::config::LayerKind) -> Result<View> {
        let Some(layer) = (0..config.num_layers()).find(|i| config.kind(*i) == kind) else {
            return self.backend.constant(&[0; 4]).await;
        };
        let (dim, rope) = (config.head_dim(layer), config.rope(layer));
        let (dim32, pairs) = (to_u32(dim), to_u32(rope.rotated_pairs(dim)));
        let table = angle_table(dim32, pairs, rope.theta, to_u32(config.max_position));
        self.backend.constant(&table.iter().map(|v| v.to_bits()).collect::<Vec<_>>()).await
    }

    /// Products of one or more published matrices. All must agree in format and input grid.
    async fn product(&mut self, linears: Vec<Linear>, next: Option<f32>, geglu: bool) -> Result<Product> {
        let first = linears[0].grids;
        let same = linears.iter().all(|l| l.grids.map(|g| g.input) == first.map(|g| g.input));
        let outputs: Vec<f32> = linears.iter().map(|l| l.grids.map_or(0.0, |g| g.output)).collect();
        let names = linears.iter().map(|l| l.name.clone()).collect::<Vec<_>>().join(", ");
        let ends: Vec<usize> = linears
            .iter()
            .scan(0, |at, l| {
                *at += l.rows;
                Some(*at)
            })
            .collect();
        let splits = if ends.len() == 3 { (to_u32(ends[0]), to_u32(ends[1])) } else { (0, 0) };
        let mut linears = linears;
        let matrix = if geglu {
            let up = linears.pop();
            let gate = linears.pop();
            match (gate, up) {
                (Some(g), Some(u)) => Matrix::geglu(g, u, self.mode),
                _ => unreachable!("GeGLU joins two matrices"),
            }
        } else {
            Matrix::stacked(linears, self.mode)
        };
        if !same || !matrix.uniform() {
            return Err(Error::unsupported(
                format!("different formats or input grids among {names}"),
                "the published checkpoints quantise matrices of the same input alike",
            ));
        }
        let parts = self.parts(&matrix).await?;
        self.bytes_per_token += matrix.bytes();
        self.finish_product(&matrix, parts, first, &outputs, next, splits).await
    }

    /// The head on the embedding's rows.
    async fn product_on(&mut self, head: Linear, parts: &[Part]) -> Result<Product> {
        let grids = head.grids;
        let matrix = Matrix::stacked(vec![head], self.mode);
        self.bytes_per_token += matrix.bytes();
        self.finish_product(&matrix, parts.to_vec(), grids, &[grids.map_or(0.0, |g| g.output)], None, (0, 0))
            .await
    }

    async fn finish_product(
        &mut self,
        matrix: &Matrix,
        parts: Vec<Part>,
        grids: Option<Grids>,
        outputs: &[f32],
        next: Option<f32>,
        splits: (u32, u32),
    ) -> Result<Product> {
        let input = grids.map_or(0.0, |g| g.input);
        let codes = input > 0.0 && matrix.scale == Scale::Row;
        let out = |i: usize| outputs.get(i).copied().unwrap_or(0.0);
        let row = [input, out(0), out(1), out(2), next.unwrap_or(0.0), 0.0, 0.0, 0.0];
        let any = row.iter().any(|v| *v != 0.0);
        Ok(Product {
            row_scales: if codes { matrix.row_scales() } else { Vec::new() },
            parts,
            rows: matrix.rows,
            columns: matrix.columns,
            format: matrix.format,
            scale: matrix.scale,
            input: if codes { Act::I8 } else { self.act },
            gridded: grids.is_some(),
            grids: if any { Some(self.backend.constant(&row.map(f32::to_bits)).await?) } else { None },
            splits,
            row,
        })
    }

    /// A table; one that would need several bindings stays on the host if `host` allows.
    async fn table(&mut self, matrix: &Matrix, host: bool) -> Result<TableParts> {
        let whole = u64::from(matrix.padded_rows()) * matrix.row_bytes();
        let on_host = host && whole > self.backend.max_binding();
        let parts = if on_host { Vec::new() } else { self.parts(matrix).await? };
        Ok(TableParts { parts, columns: matrix.columns, format: matrix.format, scale: matrix.scale, on_host })
    }

    /// Uploads a matrix in as few parts as the binding limit allows.
    async fn parts(&mut self, matrix: &Matrix) -> Result<Vec<Part>> {
        let per = u64::from(matrix.rows_per_result());
        let most = self.backend.max_binding() / (matrix.row_bytes() * per);
        let most = u32::try_from(most).unwrap_or(u32::MAX) / 64 * 64;
        if most == 0 {
            return Err(Error::unsupported(
                format!("a row of {} bytes in {}", matrix.row_bytes(), matrix.name),
                "the adapter's binding limit is too small for 64 rows; choose another adapter",
            ));
        }
        let padded = round_up(matrix.rows, 4);
        let mut parts = Vec::new();
        let mut first = 0;
        while first < padded {
            let end = first.saturating_add(most).min(padded);
            let stored = first * matrix.rows_per_result()..end * matrix.rows_per_result();
            let Packed { weights, scales, both } = self.backend.matrix(matrix, stored, self.progress).await?;
            parts.push(Part { weights, scales, both, first, rows: end.min(matrix.rows) - first });
            first = end;
        }
        Ok(parts)
    }
}

/// A vector of f32 in whole rows.
fn padded(values: &[f32]) -> Vec<u32> {
    let mut words: Vec<u32> = values.iter().map(|v| v.to_bits()).collect();
    words.resize(stride(to_u32(values.len())) as usize, 0);
    words
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
