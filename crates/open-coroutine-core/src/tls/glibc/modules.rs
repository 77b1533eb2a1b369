//! The template of a fresh block, and what `dlopen` adds to it.

use std::ffi::{c_int, c_void};
use std::ptr;

use super::arch;
use super::layout::Layout;

/// The thread-local variables of one loaded module that lie in every block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Module {
    id: usize,
    offset: isize,
    size: usize,
    /// The initial values; the rest up to `size` is zero.
    image: *const u8,
    image_size: usize,
}

/// The modules that are loaded, with TLS.
#[derive(Default)]
pub(super) struct Loaded {
    modules: Vec<Module>,
    unloads: u64,
}

impl Loaded {
    /// Asks the dynamic linker. Offsets are 0 as yet.
    pub(super) fn now() -> Self {
        let mut loaded = Self::default();
        // SAFETY: `collect` gets `loaded` back as it expects.
        unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut loaded).cast()) };
        loaded
    }

    fn has(&self, module: &Module) -> bool {
        self.modules
            .iter()
            .any(|other| other.id == module.id && other.image == module.image)
    }
}

unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    loaded: *mut c_void,
) -> c_int {
    // SAFETY: the dynamic linker gives a valid `info`, and `now` its `loaded`.
    let (info, loaded) = unsafe { (&*info, &mut *loaded.cast::<Loaded>()) };
    loaded.unloads = info.dlpi_subs;
    for index in 0..info.dlpi_phnum {
        // SAFETY: `dlpi_phnum` headers lie at `dlpi_phdr`.
        let header = unsafe { &*info.dlpi_phdr.add(index.into()) };
        if header.p_type == libc::PT_TLS {
            loaded.modules.push(Module {
                id: info.dlpi_tls_modid,
                offset: 0,
                size: header.p_memsz as usize,
                image: (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize) as *const u8,
                image_size: header.p_filesz as usize,
            });
        }
    }
    0
}

/// The bytes of a fresh block that a task may change.
pub(super) struct Template {
    /// Where they start, relative to the thread pointer.
    pub(super) start: isize,
    pub(super) image: Box<[u8]>,
    loaded: Loaded,
}

// SAFETY: the pointers in `loaded` are compared, and read only while `dlopen`
// keeps the modules loaded.
unsafe impl Send for Template {}
// SAFETY: as above; a template never changes.
unsafe impl Sync for Template {}

impl Template {
    /// Takes a copy of `block`.
    ///
    /// # Safety
    ///
    /// `block` is the thread pointer of a block that is as new.
    pub(super) unsafe fn of(layout: &Layout, block: *mut u8) -> Self {
        let mut loaded = Loaded::now();
        loaded.modules.retain_mut(|module| {
            let mut is_static = false;
            // SAFETY: the caller's promise. On a fresh block the modules that
            // have an address are those that lie in the block itself.
            unsafe {
                layout.for_each_module(block, |id, address, _| {
                    if id == module.id {
                        module.offset = address as isize - block as isize;
                        is_static = true;
                    }
                });
            }
            is_static
        });
        let low = loaded.modules.iter().map(|module| module.offset).min();
        let high = loaded.modules.iter().map(|module| module.offset + module.size as isize).max();
        let (below, above) = arch::used(low.unwrap_or(0), high.unwrap_or(0), layout.descriptor_size);
        let start = -(below as isize) & !7;
        let mut image = vec![0; (above as isize - start) as usize].into_boxed_slice();
        // SAFETY: the modules and the descriptor lie within the block.
        unsafe { ptr::copy_nonoverlapping(block.offset(start), image.as_mut_ptr(), image.len()) };
        Self { start, image, loaded }
    }

    /// The modules that are new since `before` was taken and since the
    /// template `former`.
    pub(super) fn added<'a>(
        &'a self,
        former: &'a Template,
        before: &'a Loaded,
    ) -> impl Iterator<Item = &'a Module> {
        self.loaded.modules.iter().filter(|module| {
            // Known since `former`; unless something was unloaded meanwhile,
            // in which case it may be another module in the same place.
            let same = self.loaded.unloads == former.loaded.unloads;
            !(before.has(module) || same && former.loaded.has(module))
        })
    }

    /// The module that contains `offset`: where it starts, and its size.
    pub(super) fn module_at(&self, offset: isize) -> Option<(isize, usize)> {
        let mut modules = self.loaded.modules.iter();
        let contains = |m: &&Module| (m.offset..m.offset + m.size as isize).contains(&offset);
        modules.find(contains).map(|m| (m.offset, m.size))
    }

    /// The initial value of the word at `offset`.
    pub(super) fn word(&self, offset: isize) -> u64 {
        let at = (offset - self.start) as usize;
        let bytes = self.image[at..at + 8].try_into().expect("the slice has 8 bytes");
        u64::from_ne_bytes(bytes)
    }
}

impl Module {
    /// Gives the module's variables in `block` their initial values.
    ///
    /// # Safety
    ///
    /// The module is loaded, and no code that runs on `block` uses it yet.
    pub(super) unsafe fn initialise(&self, block: *mut u8) {
        // SAFETY: the dynamic linker reserved `size` bytes here in every block.
        unsafe {
            let variables = block.offset(self.offset);
            ptr::copy_nonoverlapping(self.image, variables, self.image_size);
            variables
                .add(self.image_size)
                .write_bytes(0, self.size - self.image_size);
        }
    }
}
