//! The part of emitted code that is the same everywhere: kernel sets and the choice among them.

use proc_macro2::TokenStream;
use quote::quote;

/// Emits `KernelSet`, `SETS`, `sets_for`, `select`, `select_for`, `find` and `find_for` over the given set expressions.
pub(super) fn tokens(sets: &[TokenStream]) -> TokenStream {
    let quiet = super::quiet();
    quote! {
        /// The kernels of one database, with what a device must have to run them.
        #quiet
        #[derive(Clone, Copy, Debug)]
        pub struct KernelSet {
            /// Name of the database.
            pub name: &'static str,
            /// The adapter it was measured on; `None` for the defaults of a class.
            pub adapter: ::core::option::Option<&'static str>,
            /// PCI number of that adapter's vendor, or 0.
            pub vendor: u32,
            /// The class of device it was made for, as `Caps::class` names it.
            pub class: &'static str,
            /// Smallest subgroup the device must have; 1: none needed.
            pub subgroup: u32,
            /// The device's subgroups must have this size always: sums go over whole ones.
            pub whole_subgroups: bool,
            /// Needs WGSL's `f16`.
            pub f16: bool,
            /// Most threads of a workgroup.
            pub invocations: u32,
            /// Most bytes of workgroup memory.
            pub workgroup_bytes: u32,
            /// The kernels, sorted by family and shape.
            pub kernels: &'static [::wgforge_runtime::KernelInfo],
            /// Workgroups for a number of tokens, one function for each of `kernels`.
            pub groups: &'static [fn(u32) -> [u32; 3]],
        }

        #quiet
        impl KernelSet {
            /// Whether a device with `caps` can run the kernels of this set, but for those with more storage
            /// bindings than it has.
            pub fn fits(&self, caps: &::wgforge_runtime::Caps) -> bool {
                (self.subgroup <= 1 || caps.subgroups && caps.subgroup_min >= self.subgroup)
                    && (!self.whole_subgroups
                        || (caps.subgroup_min, caps.subgroup_max) == (self.subgroup, self.subgroup))
                    && (!self.f16 || caps.f16)
                    && self.invocations <= caps.max_invocations
                    && self.workgroup_bytes <= caps.max_workgroup_bytes
            }

            fn index(&self, kernel: &str, shape: &str) -> ::core::option::Option<usize> {
                self.kernels.binary_search_by(|info| (info.kernel, info.shape).cmp(&(kernel, shape))).ok()
            }

            /// The kernel of a family for a shape, as `Workload::shape_json` writes it.
            pub fn find(
                &self,
                kernel: &str,
                shape: &str,
            ) -> ::core::option::Option<&'static ::wgforge_runtime::KernelInfo> {
                self.index(kernel, shape).map(|i| &self.kernels[i])
            }

            /// The same, if a device with `caps` has as many storage bindings.
            pub fn find_within(
                &self,
                caps: &::wgforge_runtime::Caps,
                kernel: &str,
                shape: &str,
            ) -> ::core::option::Option<&'static ::wgforge_runtime::KernelInfo> {
                let most = caps.max_storage_bindings as usize;
                self.find(kernel, shape).filter(|info| info.storage_bindings() <= most)
            }

            /// The workgroups that kernel needs for `tokens` tokens.
            pub fn groups(&self, kernel: &str, shape: &str, tokens: u32) -> ::core::option::Option<[u32; 3]> {
                self.index(kernel, shape).map(|i| self.groups[i](tokens))
            }

            // Measured here, measured on this vendor's cards, made for everybody; not at all where it
            // was measured elsewhere. What was measured counts only where the class is the same:
            // another one was given other candidates. A name alone says little, so the vendor must
            // agree as well.
            fn rank(
                &self,
                caps: &::wgforge_runtime::Caps,
                adapter: &str,
                vendor: u32,
            ) -> ::core::option::Option<(u8, u32, bool)> {
                let same = self.vendor == vendor && self.class == caps.class();
                let closeness = match self.adapter {
                    ::core::option::Option::Some(name) if same && name == adapter => 3,
                    ::core::option::Option::Some(_) if same && vendor != 0 => 2,
                    ::core::option::Option::None => 1,
                    ::core::option::Option::Some(_) => return ::core::option::Option::None,
                };
                ::core::option::Option::Some((closeness, self.subgroup, self.f16))
            }
        }

        /// Every embedded set.
        #quiet
        pub static SETS: &[KernelSet] = &[#(#sets),*];

        /// The sets a device can run, best first: measured on this adapter, on the same vendor
        /// and class, then the defaults of the nearest class. What was measured on other devices
        /// is not among them, so a program that runs anywhere embeds a database of defaults.
        #quiet
        pub fn sets_for(
            caps: &::wgforge_runtime::Caps,
            adapter: &str,
            vendor: u32,
        ) -> ::std::vec::Vec<&'static KernelSet> {
            let rank = |set: &&KernelSet| set.rank(caps, adapter, vendor);
            let mut sets: ::std::vec::Vec<_> =
                SETS.iter().filter(|set| set.fits(caps) && rank(set).is_some()).collect();
            sets.sort_by_key(|set| ::core::cmp::Reverse(rank(set)));
            sets
        }

        /// The best set for an adapter; `None` when not even one fits. On a device with few storage bindings
        /// it may have a kernel that needs more: `find_for` then finds another set's.
        #quiet
        pub fn select_for(
            caps: &::wgforge_runtime::Caps,
            adapter: &str,
            vendor: u32,
        ) -> ::core::option::Option<&'static KernelSet> {
            sets_for(caps, adapter, vendor).into_iter().next()
        }

        /// The kernels of the closest class a device with `caps` is of; empty when none fits. Of one with few
        /// storage bindings, `find` says which it can run.
        #quiet
        pub fn select(caps: &::wgforge_runtime::Caps) -> &'static [::wgforge_runtime::KernelInfo] {
            select_for(caps, "", 0).map_or(&[], |set| set.kernels)
        }

        /// The kernel of a family for a shape, from the best set for an adapter that has it.
        #quiet
        pub fn find_for(
            caps: &::wgforge_runtime::Caps,
            adapter: &str,
            vendor: u32,
            kernel: &str,
            shape: &str,
        ) -> ::core::option::Option<&'static ::wgforge_runtime::KernelInfo> {
            sets_for(caps, adapter, vendor).into_iter().find_map(|set| set.find_within(caps, kernel, shape))
        }

        /// The same for an adapter nothing is known of but what it can do.
        #quiet
        pub fn find(
            caps: &::wgforge_runtime::Caps,
            kernel: &str,
            shape: &str,
        ) -> ::core::option::Option<&'static ::wgforge_runtime::KernelInfo> {
            find_for(caps, "", 0, kernel, shape)
        }
    }
}
