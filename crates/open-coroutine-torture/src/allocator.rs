//! The global allocator that a feature chooses: one with state per thread, which
//! runs on the threads below the coroutines.

cfg_select! {
    feature = "mimalloc" => {
        use mimalloc::MiMalloc;
        use open_coroutine::OnThread;

        #[global_allocator]
        static ALLOCATOR: OnThread<MiMalloc> = OnThread(MiMalloc);
    }
    feature = "jemalloc" => {
        use open_coroutine::OnThread;
        use tikv_jemallocator::Jemalloc;

        #[global_allocator]
        static ALLOCATOR: OnThread<Jemalloc> = OnThread(Jemalloc);
    }
    _ => {
        // The system's.
    }
}
