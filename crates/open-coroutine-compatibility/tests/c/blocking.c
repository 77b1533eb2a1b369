/* Blocking sockets, and locks that are held while they block: how C libraries
 * are written. Nothing here knows that its callers may not be threads. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Sends up to 512 bytes, and receives as many back into the sender's buffer:
 * `first` of them with poll and recv, the rest with read. The compiler does not
 * know the numbers: a fortified build checks them when it runs. */
int exchange(int fd, char *bytes, size_t length, size_t first, nfds_t waits_count) {
    char buffer[512];
    struct pollfd waits[2] = {{.fd = fd, .events = POLLIN}, {.fd = -1}};
    ssize_t count;

    if (send(fd, bytes, length, 0) != (ssize_t)length)
        return -1;
    if (poll(waits, waits_count, -1) != 1 || waits[0].revents != POLLIN)
        return -2;
    for (size_t got = 0; got < length; got += (size_t)count) {
        if (got == 0)
            count = recv(fd, buffer, first, 0);
        else
            count = read(fd, buffer, length - got);
        if (count <= 0)
            return -3;
        memcpy(bytes + got, buffer, (size_t)count);
    }
    return 0;
}

/* Opens and closes a file. The compiler does not know the flags. */
int open_once(const char *path, int flags) {
    int fd = open(path, flags);

    return fd < 0 ? -errno : close(fd);
}

/* A connection that many share: whoever asks has it for himself until the
 * answer is there. */
struct line {
    pthread_mutex_t mutex;
    int fd;
    int64_t questions;
};

struct line *line_new(int fd) {
    struct line *line = calloc(1, sizeof(*line));

    if (line != NULL) {
        pthread_mutex_init(&line->mutex, NULL);
        line->fd = fd;
    }
    return line;
}

void line_free(struct line *line) {
    pthread_mutex_destroy(&line->mutex);
    free(line);
}

void line_hold(struct line *line) { pthread_mutex_lock(&line->mutex); }

void line_release(struct line *line) { pthread_mutex_unlock(&line->mutex); }

int64_t line_ask(struct line *line, int64_t question) {
    int64_t answer = -1;
    int64_t before;

    pthread_mutex_lock(&line->mutex);
    before = line->questions;
    if (send(line->fd, &question, sizeof(question), 0) != sizeof(question) ||
        recv(line->fd, &answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
        answer = -1;
    usleep(20);
    line->questions = before + 1;
    pthread_mutex_unlock(&line->mutex);
    return answer;
}

int64_t line_questions(struct line *line) { return line->questions; }

/* Answers at the other end until nobody asks any more. */
void line_serve(int fd) {
    int64_t number;

    while (recv(fd, &number, sizeof(number), MSG_WAITALL) == sizeof(number)) {
        number = number * number + 1;
        send(fd, &number, sizeof(number), MSG_NOSIGNAL);
    }
}

/* A queue of a few places: who puts waits for one, who takes for an element. */
struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t has_element;
    pthread_cond_t has_place;
    int64_t elements[4];
    size_t first;
    size_t count;
};

struct queue *queue_new(void) {
    struct queue *queue = calloc(1, sizeof(*queue));

    if (queue != NULL) {
        pthread_mutex_init(&queue->mutex, NULL);
        pthread_cond_init(&queue->has_element, NULL);
        pthread_cond_init(&queue->has_place, NULL);
    }
    return queue;
}

void queue_free(struct queue *queue) {
    pthread_cond_destroy(&queue->has_place);
    pthread_cond_destroy(&queue->has_element);
    pthread_mutex_destroy(&queue->mutex);
    free(queue);
}

void queue_put(struct queue *queue, int64_t element) {
    pthread_mutex_lock(&queue->mutex);
    while (queue->count == 4)
        pthread_cond_wait(&queue->has_place, &queue->mutex);
    queue->elements[(queue->first + queue->count) % 4] = element;
    queue->count++;
    usleep(20);
    pthread_cond_signal(&queue->has_element);
    pthread_mutex_unlock(&queue->mutex);
}

int64_t queue_take(struct queue *queue) {
    int64_t element;

    pthread_mutex_lock(&queue->mutex);
    while (queue->count == 0)
        pthread_cond_wait(&queue->has_element, &queue->mutex);
    element = queue->elements[queue->first];
    queue->first = (queue->first + 1) % 4;
    queue->count--;
    pthread_cond_signal(&queue->has_place);
    pthread_mutex_unlock(&queue->mutex);
    return element;
}

/* What a wait of some milliseconds for an element that does not come returns. */
int queue_give_up(struct queue *queue, long milliseconds) {
    struct timespec deadline;
    int error = 0;

    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_nsec += milliseconds * 1000000;
    deadline.tv_sec += deadline.tv_nsec / 1000000000;
    deadline.tv_nsec %= 1000000000;
    pthread_mutex_lock(&queue->mutex);
    while (queue->count == 0 && error == 0)
        error = pthread_cond_timedwait(&queue->has_element, &queue->mutex, &deadline);
    pthread_mutex_unlock(&queue->mutex);
    return error;
}

/* Numbers that each thread adds up for itself, and `errno`, over sleeps. */
static __thread int64_t tally;

int64_t tally_add(int64_t number, int times) {
    for (int i = 0; i < times; i++) {
        int64_t before = tally;

        errno = (int)number;
        usleep(100);
        if (errno != (int)number || tally != before)
            return -1;
        tally = before + number;
    }
    return tally;
}

/* How often a thread that had used `destroyed_later` ended. */
static pthread_key_t key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static int64_t destroyed;

static void destroy(void *value) { __atomic_add_fetch(&destroyed, (int64_t)(intptr_t)value, __ATOMIC_SEQ_CST); }

static void create_key(void) { pthread_key_create(&key, destroy); }

int destroyed_later(int64_t number) {
    pthread_once(&key_once, create_key);
    if (pthread_getspecific(key) != NULL)
        return -1;
    pthread_setspecific(key, (void *)(intptr_t)number);
    usleep(100);
    return pthread_getspecific(key) == (void *)(intptr_t)number ? 0 : -2;
}

int64_t take_destroyed(void) { return __atomic_exchange_n(&destroyed, 0, __ATOMIC_SEQ_CST); }
