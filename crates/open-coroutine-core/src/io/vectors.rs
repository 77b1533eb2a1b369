//! Arrays of buffers (`iovec`) of which a part has been transferred.

use libc::iovec;

/// The buffers of an array.
///
/// # Safety
///
/// `iov` points to `count` entries that stay as they are while the result is
/// used, or `count` is 0.
pub(super) unsafe fn buffers<'a>(iov: *const iovec, count: usize) -> &'a [iovec] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(iov, count) }
}

/// How many bytes the buffers have.
pub(super) fn length(buffers: &[iovec]) -> usize {
    buffers.iter().map(|buffer| buffer.iov_len).sum()
}

/// The buffers that are left after the first `done` bytes.
pub(super) fn after(buffers: &[iovec], done: usize) -> Vec<iovec> {
    let mut skip = done;
    let mut rest = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        if skip >= buffer.iov_len {
            skip -= buffer.iov_len;
            continue;
        }
        rest.push(iovec {
            // Within the buffer, see the check above.
            iov_base: buffer.iov_base.wrapping_byte_add(skip),
            iov_len: buffer.iov_len - skip,
        });
        skip = 0;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_begins_where_the_transfer_ended() {
        let mut bytes = [0u8; 10];
        let start = bytes.as_mut_ptr();
        let buffer = |at: usize, len| iovec {
            iov_base: start.wrapping_add(at).cast(),
            iov_len: len,
        };
        let buffers = [buffer(0, 3), buffer(3, 0), buffer(3, 7)];
        assert_eq!(10, length(&buffers));
        let parts = |done| -> Vec<(usize, usize)> {
            let rest = after(&buffers, done);
            let part = |left: &iovec| (left.iov_base as usize - start as usize, left.iov_len);
            rest.iter().map(part).collect()
        };
        assert_eq!(vec![(1, 2), (3, 7)], parts(1));
        assert_eq!(vec![(3, 7)], parts(3));
        assert_eq!(vec![(9, 1)], parts(9));
        assert!(parts(10).is_empty());
    }
}
