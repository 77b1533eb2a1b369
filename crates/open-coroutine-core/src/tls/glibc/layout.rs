//! What this process's glibc exports, and where things lie in a TLS block.
//!
//! Everything is found at run time: functions by `dlsym`, fields of `struct
//! pthread` by the descriptors that glibc exports for debuggers, and checked
//! against the calling thread. All offsets are relative to the thread pointer.

use std::ffi::{CStr, c_int, c_void};
use std::mem;
use std::ptr;

use super::{Refusal, arch};
use crate::sys;

/// A pthread key's destructor.
pub(super) type Destructor = unsafe extern "C" fn(*mut c_void);

type Allocate = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type Deallocate = unsafe extern "C" fn(*mut c_void, bool);
type Procedure = unsafe extern "C" fn();

/// No block shares a cache line with another.
const CACHE_LINE: usize = 64;

/// Keys per level of the table of pthread keys.
pub(super) const KEYS_PER_LEVEL: usize = 32;
/// Levels of that table; the first is part of `struct pthread`.
pub(super) const LEVELS: usize = 32;

/// The oldest version that has been seen to work.
const OLDEST: (u32, u32) = (2, 31);
/// Sizes and offsets of versions that export no descriptors (before 2.34).
#[cfg(target_arch = "x86_64")]
const UNDESCRIBED: Fields = Fields { size: 2304, thread_id: 720, specific: 1296 };
#[cfg(target_arch = "aarch64")]
const UNDESCRIBED: Fields = Fields { size: 1824, thread_id: 208, specific: 784 };

/// `cpu_id` of an area that the kernel does not keep up to date.
const RSEQ_CPU_ID_REGISTRATION_FAILED: i32 = -2;
/// A module in the dynamic thread vector that this thread has not used.
const UNALLOCATED: usize = usize::MAX;

/// Size and offsets of `struct pthread`.
#[derive(Clone, Copy)]
struct Fields {
    size: usize,
    thread_id: usize,
    specific: usize,
}

/// One pthread key's value in one thread, as glibc lays it out.
#[repr(C)]
pub(super) struct Specific {
    pub(super) sequence: usize,
    pub(super) value: *mut c_void,
}

/// One pthread key, as glibc lays it out.
#[repr(C)]
pub(super) struct Key {
    pub(super) sequence: usize,
    pub(super) destructor: Option<Destructor>,
}

/// An entry of the dynamic thread vector, as glibc lays it out.
#[repr(C)]
struct VectorEntry {
    /// The module's variables; a counter in the entries -1 and 0.
    address: usize,
    to_free: *mut c_void,
}

/// Functions and offsets.
pub(super) struct Layout {
    pub(super) version: String,
    pub(super) allocate: Allocate,
    pub(super) deallocate: Deallocate,
    pub(super) call_tls_dtors: Procedure,
    pub(super) ctype_init: Procedure,
    pub(super) resolver_close: Option<Destructor>,
    /// glibc's table of keys; before 2.34 it is not exported.
    pub(super) keys: Option<*const Key>,
    pub(super) alignment: usize,
    pub(super) static_size: usize,
    pub(super) descriptor_size: usize,
    pub(super) thread_id: isize,
    pub(super) specific: isize,
    pub(super) errno: isize,
    /// The variable that points to the resolver's state.
    pub(super) resolver_pointer: isize,
    /// That state, inside `struct pthread`.
    pub(super) resolver: isize,
    robust_head: isize,
    futex_offset: isize,
    rseq: Option<isize>,
}

// SAFETY: the pointers are to functions and variables of the C library, which
// live as long as the process.
unsafe impl Send for Layout {}
// SAFETY: as above; nothing is written through them.
unsafe impl Sync for Layout {}

impl Layout {
    /// Looks everything up. Call it on a thread that `pthread_create` made.
    pub(super) fn discover() -> Result<Self, Refusal> {
        let version = version()?;
        let own = arch::thread_pointer();
        let fields = fields()?;
        let descriptor = arch::descriptor(fields.size);
        if !arch::is_header_as_expected() {
            return Err(Refusal::Layout("header"));
        }
        // SAFETY: pthread_self has no requirements.
        if unsafe { libc::pthread_self() } as usize != (own as usize).wrapping_add_signed(descriptor) {
            return Err(Refusal::Layout("thread pointer"));
        }
        let (static_size, alignment) = static_info()?;
        let allocate = symbol(c"_dl_allocate_tls", "_dl_allocate_tls")?;
        let deallocate = symbol(c"_dl_deallocate_tls", "_dl_deallocate_tls")?;
        let call_tls_dtors = symbol(c"__call_tls_dtors", "__call_tls_dtors")?;
        let ctype_init = symbol(c"__ctype_init", "__ctype_init")?;
        let resolver_pointer = symbol(c"__resp", "__resp")?;
        // SAFETY: glibc has exported these functions with these signatures
        // since 2.31, and `__rseq_offset` as a `ptrdiff_t` since 2.35.
        let layout = unsafe {
            Self {
                version,
                allocate: mem::transmute::<*mut c_void, Allocate>(allocate),
                deallocate: mem::transmute::<*mut c_void, Deallocate>(deallocate),
                call_tls_dtors: mem::transmute::<*mut c_void, Procedure>(call_tls_dtors),
                ctype_init: mem::transmute::<*mut c_void, Procedure>(ctype_init),
                resolver_close: find(c"__res_nclose")
                    .map(|function| mem::transmute::<*mut c_void, Destructor>(function)),
                keys: keys(),
                alignment: alignment.max(CACHE_LINE),
                static_size,
                descriptor_size: fields.size,
                thread_id: descriptor + fields.thread_id as isize,
                specific: descriptor + fields.specific as isize,
                errno: libc::__errno_location() as isize - own as isize,
                resolver_pointer: resolver_pointer as isize - own as isize,
                resolver: 0,
                robust_head: 0,
                futex_offset: 0,
                rseq: find(c"__rseq_offset").map(|offset| offset.cast::<isize>().read()),
            }
        };
        layout.check_thread_id()?.with_robust_list()?.with_resolver()
    }

    /// The flag that the block has had a value for some pthread key.
    pub(super) fn specific_used(&self) -> isize {
        self.specific + (LEVELS * size_of::<*mut Specific>()) as isize
    }

    fn check_thread_id(self) -> Result<Self, Refusal> {
        let own = arch::thread_pointer();
        let first_level = self.first_level();
        // SAFETY: the offsets lie within the calling thread's descriptor, whose
        // size glibc told.
        let (thread_id, first) = unsafe {
            (
                own.offset(self.thread_id).cast::<i32>().read(),
                own.offset(self.specific).cast::<*mut u8>().read(),
            )
        };
        if thread_id != sys::gettid() {
            return Err(Refusal::Layout("thread id"));
        }
        if first != own.wrapping_offset(first_level) {
            return Err(Refusal::Layout("thread-specific data"));
        }
        Ok(self)
    }

    fn with_robust_list(mut self) -> Result<Self, Refusal> {
        let own = arch::thread_pointer();
        let (mut head, mut size) = (ptr::null_mut::<u8>(), 0usize);
        let arguments = [0, &raw mut head as usize, &raw mut size as usize, 0, 0, 0];
        // SAFETY: get_robust_list writes a pointer and a size.
        let result = unsafe { sys::syscall(libc::SYS_get_robust_list, arguments) };
        let offset = head as isize - own as isize;
        if result != 0 || offset != self.thread_id + 16 {
            return Err(Refusal::Layout("robust list"));
        }
        // SAFETY: the kernel's list head is two pointers and an offset between.
        self.futex_offset = unsafe { head.add(8).cast::<isize>().read() };
        self.robust_head = offset;
        Ok(self)
    }

    fn with_resolver(mut self) -> Result<Self, Refusal> {
        let own = arch::thread_pointer();
        // SAFETY: dlsym gave the address of the calling thread's variable.
        let state = unsafe { own.offset(self.resolver_pointer).cast::<usize>().read() };
        self.resolver = state as isize - own as isize;
        let start = arch::descriptor(self.descriptor_size);
        let end = start + self.descriptor_size as isize;
        if self.resolver <= self.thread_id || self.resolver >= end {
            return Err(Refusal::Layout("resolver state"));
        }
        Ok(self)
    }

    /// The table of the first pthread keys' values, in `struct pthread`.
    fn first_level(&self) -> isize {
        self.specific - (KEYS_PER_LEVEL * size_of::<Specific>()) as isize
    }

    /// Bytes of a block below and above its thread pointer.
    pub(super) fn span(&self) -> (usize, usize) {
        arch::span(self.static_size, self.descriptor_size)
    }

    /// Words that differ from block to block, or hold no state of a task.
    pub(super) fn personal_words(&self) -> Vec<isize> {
        let mut words = arch::PERSONAL.to_vec();
        words.extend([
            self.thread_id & !7,
            self.robust_head - 8,
            self.robust_head,
            self.specific,
            self.resolver_pointer & !7,
            self.errno & !7,
        ]);
        words
    }

    /// Fills in what `_dl_allocate_tls` leaves to `pthread_create`.
    ///
    /// # Safety
    ///
    /// `block` is a thread pointer that `allocate` returned, and nobody runs
    /// on it.
    pub(super) unsafe fn personalise(&self, block: *mut u8, thread_id: i32) {
        // SAFETY: all offsets lie within the block, as `discover` has checked
        // on a thread whose TLS has the same layout.
        unsafe {
            arch::write_header(block, block.offset(arch::descriptor(self.descriptor_size)));
            block.offset(self.thread_id).cast::<i32>().write(thread_id);
            let head = block.offset(self.robust_head);
            head.sub(8).cast::<*mut u8>().write(head);
            head.cast::<*mut u8>().write(head);
            head.add(8).cast::<isize>().write(self.futex_offset);
            let first_level = block.offset(self.first_level());
            block.offset(self.specific).cast::<*mut u8>().write(first_level);
            let resolver = block.offset(self.resolver);
            block.offset(self.resolver_pointer).cast::<*mut u8>().write(resolver);
            if let Some(rseq) = self.rseq {
                let area = block.offset(rseq).cast::<i32>();
                area.write(0);
                area.add(1).write(RSEQ_CPU_ID_REGISTRATION_FAILED);
            }
        }
    }

    /// Calls `visit` with each module of the block: its id, the address of its
    /// variables, and whether they were allocated on demand.
    ///
    /// # Safety
    ///
    /// `block` is a thread pointer that `allocate` returned.
    pub(super) unsafe fn for_each_module(
        &self,
        block: *mut u8,
        mut visit: impl FnMut(usize, *mut u8, bool),
    ) {
        // SAFETY: glibc keeps the vector at this offset, with its length in
        // entry -1.
        unsafe {
            let vector = block.offset(arch::DTV).cast::<*const VectorEntry>().read();
            for module in 1..=(*vector.sub(1)).address {
                let entry = &*vector.add(module);
                if entry.address != UNALLOCATED && entry.address != 0 {
                    visit(module, entry.address as *mut u8, !entry.to_free.is_null());
                }
            }
        }
    }
}

fn version() -> Result<String, Refusal> {
    // SAFETY: returns a static string.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    let version = version.to_string_lossy().into_owned();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(version),
        _ => Err(Refusal::UnknownGlibc(version)),
    }
}

/// The size of the TLS that every thread has, and its alignment.
fn static_info() -> Result<(usize, usize), Refusal> {
    const NAME: &str = "_dl_get_tls_static_info";
    let function = symbol(c"_dl_get_tls_static_info", NAME)?;
    let (mut size, mut alignment) = (0, 0);
    // SAFETY: glibc has exported it with this signature since 2.31; it writes
    // two integers.
    unsafe {
        let function: unsafe extern "C" fn(*mut usize, *mut usize) = mem::transmute(function);
        function(&mut size, &mut alignment);
    }
    if size == 0 || size > 1 << 20 || !alignment.is_power_of_two() {
        return Err(Refusal::Layout("static TLS size"));
    }
    Ok((size, alignment))
}

fn fields() -> Result<Fields, Refusal> {
    // The descriptor of a field is its size in bits, its count and its offset.
    const OFFSET: usize = 2;
    // SAFETY: glibc exports them with these types for libthread_db.
    let fields = unsafe {
        let field = |name| find(name).map(|entry| entry.cast::<[u32; 3]>().read()[OFFSET] as usize);
        let size = find(c"_thread_db_sizeof_pthread").map(|size| size.cast::<u32>().read() as usize);
        match (size, field(c"_thread_db_pthread_tid"), field(c"_thread_db_pthread_specific")) {
            (Some(size), Some(thread_id), Some(specific)) => Fields { size, thread_id, specific },
            _ => UNDESCRIBED,
        }
    };
    let first_level = KEYS_PER_LEVEL * size_of::<Specific>();
    if fields.thread_id + 32 > fields.size || fields.specific + 8 * LEVELS >= fields.size || fields.specific < first_level {
        return Err(Refusal::Layout("sizes"));
    }
    Ok(fields)
}

/// glibc's table of keys, if it is exported and looks as expected.
fn keys() -> Option<*const Key> {
    unsafe extern "C" fn marker(_: *mut c_void) {}

    let table = find(c"__pthread_keys")?.cast::<Key>().cast_const();
    let mut key = 0;
    // SAFETY: writes the key.
    let created: c_int = unsafe { libc::pthread_key_create(&mut key, Some(marker)) };
    if created != 0 {
        return None;
    }
    // SAFETY: the table has an entry for each key that exists.
    let found = unsafe { (*table.add(key as usize)).destructor };
    // SAFETY: the key was created above.
    unsafe { libc::pthread_key_delete(key) };
    let marker: Destructor = marker;
    (found.map(|found| found as usize) == Some(marker as usize)).then_some(table)
}

fn symbol(name: &CStr, text: &'static str) -> Result<*mut c_void, Refusal> {
    find(name).ok_or(Refusal::MissingSymbol(text))
}

/// The address of what some loaded library exports as `name`.
pub(super) fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `name` is a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}
