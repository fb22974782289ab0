//! The reference backend: every step by its kernel's own `reference`.

use wgforge_codegen::{
    Caps, Variant, Workload,
    io::{Buf, Io},
};

use super::{Step, View};

/// Buffers in memory.
#[derive(Debug, Default)]
pub(crate) struct Cpu {
    buffers: Vec<Vec<u32>>,
}

/// References follow a configuration only in the layout of outputs, so any will do.
pub(super) fn choose(workload: &Workload) -> Variant {
    workload.generic(&Caps { max_binding_bytes: u64::MAX, ..Caps::webgpu_baseline() })
}

fn words(view: View) -> std::ops::Range<usize> {
    let to = |bytes: u64| usize::try_from(bytes / 4).unwrap_or(usize::MAX);
    to(view.offset)..to(view.offset + view.bytes)
}

impl Cpu {
    /// The memory goes; the place stays empty.
    pub(super) fn free(&mut self, view: View) {
        self.buffers[view.buffer] = Vec::new();
    }

    pub(super) fn buffer(&mut self, bytes: u64) -> View {
        self.constant(vec![0; words(View { buffer: 0, offset: 0, bytes }).end])
    }

    pub(super) fn constant(&mut self, data: Vec<u32>) -> View {
        let bytes = data.len() as u64 * 4;
        self.buffers.push(data);
        View { buffer: self.buffers.len() - 1, offset: 0, bytes }
    }

    pub(super) fn grow(&mut self, old: View, bytes: u64) -> View {
        self.buffers[old.buffer].resize(words(View { bytes, ..old }).end, 0);
        View { bytes, ..old }
    }

    pub(super) fn write(&mut self, view: View, data: &[u8]) {
        let range = words(view);
        let target = &mut self.buffers[view.buffer][range];
        bytemuck::cast_slice_mut::<u32, u8>(target)[..data.len()].copy_from_slice(data);
    }

    pub(super) fn read(&self, view: View) -> Vec<u8> {
        bytemuck::cast_slice(&self.buffers[view.buffer][words(view)]).to_vec()
    }

    pub(super) fn copy(&mut self, from: View, to: View) {
        let data = self.buffers[from.buffer][words(from)].to_vec();
        let range = words(to);
        self.buffers[to.buffer][range].copy_from_slice(&data);
    }

    pub(super) fn memory_in_use(&self) -> u64 {
        self.buffers.iter().map(|b| b.len() as u64 * 4).sum()
    }

    pub(super) fn run(&mut self, steps: &[Step], tokens: u32) {
        for step in steps {
            self.step(step, tokens);
        }
    }

    fn step(&mut self, step: &Step, tokens: u32) {
        let names = step.variant.bindings();
        let written = step.variant.written();
        // Written buffers are taken out, so that the rest can be lent at the same time.
        let mut taken: Vec<(usize, Vec<u32>)> = Vec::new();
        for (name, view) in names.iter().zip(&step.views) {
            if written.contains(name) && !taken.iter().any(|(b, _)| *b == view.buffer) {
                taken.push((view.buffer, std::mem::take(&mut self.buffers[view.buffer])));
            }
        }
        {
            let mut lent: Vec<(usize, &mut [u32])> =
                taken.iter_mut().map(|(b, v)| (*b, v.as_mut_slice())).collect();
            let mut bufs = Vec::new();
            for (name, view) in names.iter().zip(&step.views) {
                bufs.push(if written.contains(name) {
                    let at = lent
                        .iter()
                        .position(|(b, _)| *b == view.buffer)
                        .unwrap_or_else(|| panic!("{}: two written bindings share a buffer", step.label));
                    let (_, data) = lent.swap_remove(at);
                    Buf::Write(&mut data[words(*view)])
                } else {
                    Buf::Read(&self.buffers[view.buffer][words(*view)])
                });
            }
            step.variant.reference(&mut Io::new(names, bufs, tokens as usize));
        }
        for (buffer, data) in taken {
            self.buffers[buffer] = data;
        }
    }
}
