//! cubecl's side: its tuned matrix product as burn-cubecl holds it, on tensors of cubecl's client.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use burn_backend::{DType, Shape};
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::tensor::CubeTensor;
use cubecl::Device;
use cubecl::client::Client;
use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig as _, autotune::AutotuneLevel};
use cubecl::wgpu::{
    AutoGraphicsApi, RuntimeOptions, WgpuBackend, WgpuDevice, WgpuDeviceKind, try_init_setup,
};
use pollster::block_on;
use wgforge_codegen::{check::POISON, types::Act};
use wgforge_runtime::{AdapterReport, Backend, adapters, bytemuck};

use crate::measure::Runner;
use crate::problem::{Data, Problem};

/// How a product is put to cubecl: which of them it computes fastest depends on the device, and a
/// program could store its weights in any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `X (W^T)`, the weights stored as `columns` rows of `rows`: what burn's linear layers do.
    Transposed,
    /// `X W^T`, the weights stored as wgforge has them and seen transposed.
    View,
    /// `W x`: only for vectors.
    Left,
}

impl Layout {
    pub(crate) fn of(problem: &Problem) -> &'static [Self] {
        if problem.is_vector() {
            &[Self::Transposed, Self::View, Self::Left]
        } else {
            &[Self::Transposed, Self::View]
        }
    }

    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Transposed => "k×n",
            Self::View => "n×k",
            Self::Left => "n×k left",
        }
    }
}

/// cubecl's device.
pub(crate) struct Peer {
    device: Device,
    client: Client,
}

impl Peer {
    /// Opens the adapter of `report`.
    pub(crate) fn open(report: &AdapterReport) -> Result<Self> {
        guarded(|| Self::try_open(report))
    }

    fn try_open(report: &AdapterReport) -> Result<Self> {
        // The most thorough there is: every candidate is measured, and the ranges of sizes that share
        // a result are the narrowest. No file or variable of the place it runs in has a say.
        let mut config = CubeClRuntimeConfig::default();
        config.autotune.level = AutotuneLevel::Full;
        config.autotune.disable_cache = true;
        if !CubeClRuntimeConfig::try_set(config) {
            bail!("cubecl was configured before");
        }
        let api: Backend = report.backend.parse()?;
        let same_kind = block_on(adapters(Some(api)))
            .into_iter()
            .filter(|a| a.device_type == report.device_type)
            .position(|a| a.name == report.name && a.vendor == report.vendor && a.device == report.device);
        // cubecl counts the adapters of each kind in wgpu's order.
        let index = same_kind.context("cubecl sees other adapters")?;
        let kind = match report.device_type.as_str() {
            "discrete" => WgpuDeviceKind::DiscreteGpu(index),
            "integrated" => WgpuDeviceKind::IntegratedGpu(index),
            "virtual" => WgpuDeviceKind::VirtualGpu(index),
            "cpu" => WgpuDeviceKind::Cpu,
            _ => WgpuDeviceKind::Other(index),
        };
        let backend = match api {
            Backend::Vulkan => WgpuBackend::Vulkan,
            Backend::Metal => WgpuBackend::Metal,
            Backend::Dx12 => WgpuBackend::Dx12,
            Backend::Gl => WgpuBackend::Gl,
            _ => bail!("cubecl has no backend {api}"),
        };
        let device = WgpuDevice { kind, backend };
        let setup = try_init_setup::<AutoGraphicsApi>(&device, RuntimeOptions::try_default()?)?;
        let info = setup.adapter.get_info();
        if info.name != report.name {
            bail!("cubecl opened {} instead of {}", info.name, report.name);
        }
        let device = Device::from(device);
        let client = device.client();
        Ok(Self { device, client })
    }

    /// The name of cubecl's runtime, which says what language its kernels are compiled to.
    pub(crate) fn runtime(&self) -> &'static str {
        self.client.name()
    }

    /// Uploads a problem's numbers and tunes its product.
    pub(crate) fn bind(&self, data: &Data, layout: Layout, copies: u64) -> Result<Bound> {
        guarded(|| self.try_bind(data, layout, copies))
    }

    fn try_bind(&self, data: &Data, layout: Layout, copies: u64) -> Result<Bound> {
        let problem = data.problem;
        let (m, n, k) = (problem.tokens as usize, problem.rows as usize, problem.columns as usize);
        let x: &[u8] = bytemuck::cast_slice(data.words("x")?);
        let w: &[u8] = bytemuck::cast_slice(data.words("w")?);
        let element = usize::try_from(problem.element())?;
        let turned = if layout == Layout::Transposed { transposed(w, n, k, element) } else { Vec::new() };
        let weights = (0..copies)
            .map(|_| match layout {
                Layout::Transposed => self.tensor(&problem, &turned, [k, n]),
                Layout::View => {
                    let mut tensor = self.tensor(&problem, w, [n, k]);
                    tensor.meta.swap(0, 1);
                    tensor
                }
                Layout::Left => self.tensor(&problem, w, [n, k]),
            })
            .collect();
        let left = layout == Layout::Left;
        let x = self.tensor(&problem, x, if left { [k, m] } else { [m, k] });
        let poison = vec![POISON; data.words("out")?.len()];
        let shape = if left { [n, m] } else { [m, n] };
        let out = self.tensor(&problem, bytemuck::cast_slice(&poison), shape);
        let mut bound = Bound { client: self.client.clone(), x, weights, out, left, next: 0 };
        // The first call tunes.
        let start = Instant::now();
        bound.dispatch()?;
        bound.sync()?;
        eprintln!("  cubecl {}: tuned in {:.1} s", layout.name(), start.elapsed().as_secs_f64());
        Ok(bound)
    }

    fn tensor(&self, problem: &Problem, bytes: &[u8], shape: [usize; 2]) -> CubeTensor {
        let dtype = if problem.act == Act::F16 { DType::F16 } else { DType::F32 };
        let handle = self.client.create_from_slice(bytes);
        let (client, device) = (self.client.clone(), self.device.clone());
        CubeTensor::new_contiguous(client, device, Shape::from(shape), handle, dtype)
    }

    /// Gives the memory of dropped tensors back.
    pub(crate) fn clean(&self) {
        if let Err(error) = guarded(|| self.client.memory_cleanup().map_err(|e| anyhow!("{e:?}"))) {
            eprintln!("notice: cubecl's memory: {error:#}");
        }
    }
}

/// The `columns` rows of `rows` elements that `rows` rows of `columns` elements are, turned.
fn transposed(bytes: &[u8], rows: usize, columns: usize, element: usize) -> Vec<u8> {
    /// Rows and columns turned together, so that both sides stay in the cache.
    const TILE: usize = 32;
    let mut turned = vec![0; bytes.len()];
    for (r0, c0) in (0..rows).step_by(TILE).flat_map(|r| (0..columns).step_by(TILE).map(move |c| (r, c))) {
        for r in r0..(r0 + TILE).min(rows) {
            for c in c0..(c0 + TILE).min(columns) {
                let (from, to) = ((r * columns + c) * element, (c * rows + r) * element);
                turned[to..to + element].copy_from_slice(&bytes[from..from + element]);
            }
        }
    }
    turned
}

/// Tensors of one product.
pub(crate) struct Bound {
    client: Client,
    x: CubeTensor,
    /// One for each copy of the weights.
    weights: Vec<CubeTensor>,
    /// One for all dispatches, so that each waits for the one before.
    out: CubeTensor,
    left: bool,
    next: usize,
}

impl Bound {
    fn dispatch(&mut self) -> Result<()> {
        let w = self.weights[self.next].clone();
        self.next = (self.next + 1) % self.weights.len();
        let (lhs, rhs) = if self.left { (w, self.x.clone()) } else { (self.x.clone(), w) };
        matmul(lhs, rhs, Some(self.out.clone()), MatmulStrategy::Autotune, self.out.dtype)
            .map_err(|e| anyhow!("{e:?}"))?;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        block_on(self.client.sync()).map_err(|e| anyhow!("{e:?}"))
    }
}

impl Runner for Bound {
    fn batch(&mut self, n: u32) -> Result<(Duration, Duration)> {
        guarded(|| {
            let start = Instant::now();
            for _ in 0..n {
                self.dispatch()?;
            }
            let host = start.elapsed();
            self.sync()?;
            Ok((host, start.elapsed()))
        })
    }

    fn alone(&mut self) -> Result<Option<f64>> {
        guarded(|| {
            let client = self.client.clone();
            let (done, profile) =
                client.profile(|| self.dispatch(), "peers").map_err(|e| anyhow!("{e:?}"))?;
            done?;
            if profile.timing_method() != cubecl::profile::TimingMethod::Device {
                return Ok(None);
            }
            Ok(block_on(profile.resolve()).map(|ticks| ticks.duration().as_secs_f64() * 1e6))
        })
    }

    fn result(&mut self) -> Result<Vec<u32>> {
        guarded(|| {
            let bytes = self.client.read_one(self.out.handle.clone()).map_err(|e| anyhow!("{e:?}"))?;
            Ok(bytemuck::pod_collect_to_vec(&bytes))
        })
    }
}

/// cubecl panics where wgforge returns errors; here both are errors.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(anyhow!("cubecl panicked: {text}"))
    })
}
