@group(0) @binding({{ b.x }}) var<storage, read> x: array<f32>;
@group(0) @binding({{ b.pre }}) var<storage, read> pre: array<f32>;
@group(0) @binding({{ b.out }}) var<storage, read_write> out: array<f32>;

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  out[id.x] = x[id.x] * pre[id.x % {{ s.widht }}u];
}
