/* The launcher: the executable that `pycni install` puts into the plugin directory under the name of each plugin.
 *
 * It sends its call to the resident server (environment, stdin, descriptors of its own network namespace and of the
 * container's) and prints the answer. If no server accepts the call, it executes the one-shot script of the same name,
 * which has the same effect and is slower. The messages of a call, those of the server on the right:
 *
 *     header, descriptors, type, environment, stdin   ->
 *                                                     <-   A: accepted, R: refused, or N: wrong namespaces
 *                                                     <-   D: done, status, stdout, stderr; or R
 *
 * There may be two servers: the one of the installation, for callers in its own namespaces, and an on-demand server for
 * the launcher's user namespace, which the launcher starts in the background if there is neither (start_server).
 *
 * Until the launcher has read A it may withdraw the call: it shuts its side of the connection down, and then checks once
 * more for A. The server sends A, and then checks for that shutdown before it executes the call; if there is one, it
 * sends R. So at least one side sees the message of the other, and no call is executed twice. After A the launcher never
 * repeats an ADD: an ADD that is executed twice is worse than error 11, "try again later". It repeats all other verbs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x324e4350u           /* "PCN2" */
#define MAGIC_ON_DEMAND 0x334e4350u /* "PCN3": the mount namespace follows the network namespace */
#define FIRST_USER_NAMESPACE 0xeffffffdu /* its inode, USER_NS_INIT_INO of linux/nsfs.h */
#define STDIN_MAX (16u << 20)
#define ANSWER_MAX (64u << 20)
#define CONNECT_MS 200
#define ACCEPT_MS 10000
#define ANSWER_MS 900000
#define RETRY_SECONDS 30 /* between two attempts to start an on-demand server */

/* `pycni install` overwrites these values in the compiled file; it finds them by the names in front. */
static volatile char socket_path[256] = "PYCNI-SOCKET=/run/pycni/pycni.sock";
static volatile char oneshot_dir[1024] = "PYCNI-ONESHOT=/usr/libexec/pycni";
static volatile char server_script[1024] = "PYCNI-SERVER="; /* starts an on-demand server; empty: never start one */
extern char **environ;
static char *no_arguments[] = {NULL, NULL}, **arguments = no_arguments; /* of the one-shot script */

static const char *setting(volatile char *text) { return strchr((const char *)text, '=') + 1; }

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static void print(int fd, const char *text) {
    size_t left = strlen(text);
    while (left) {
        ssize_t done = write(fd, text, left);
        if (done <= 0) return;
        text += done;
        left -= (size_t)done;
    }
}

/* Read a descriptor to its end. Returns 0 on an error; `data` then has what was read before it. */
static int read_all(int fd, char **data, size_t *length) {
    size_t room = 1 << 16;
    char *buffer = malloc(room);
    *length = 0;
    while (buffer) {
        ssize_t got = read(fd, buffer + *length, room - *length);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EBADF) got = 0; /* a closed stdin counts as empty */
        if (got < 0) break;
        if (got == 0) { *data = buffer; return 1; }
        *length += (size_t)got;
        if (*length == room) buffer = realloc(buffer, room *= 2);
    }
    *data = buffer;
    return 0;
}

/* Replace this process by the one-shot script. `consumed`: stdin was read, and the script must get it again. */
static void oneshot(const char *type, const char *data, size_t length, int consumed) {
    if (consumed) {
        int memory = memfd_create("stdin", 0);
        for (size_t done = 0; memory >= 0 && done < length;) {
            ssize_t wrote = write(memory, data + done, length - done);
            if (wrote <= 0) break;
            done += (size_t)wrote;
        }
        if (memory < 0 || lseek(memory, 0, SEEK_SET) < 0 || dup2(memory, 0) < 0) _exit(1);
        if (memory != 0) close(memory);
    }
    char path[1400];
    const char *directory = getenv("PYCNI_ONESHOT_DIR");
    if (!directory || !*directory) directory = setting(oneshot_dir);
    if (strlen(directory) + strlen(type) + 2 > sizeof path) _exit(1);
    strcat(strcat(strcpy(path, directory), "/"), type);
    arguments[0] = path;
    execv(path, arguments);
    print(1, "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 999,\n    \"msg\": \"pycni is not installed completely: cannot start ");
    print(1, path);
    print(1, "\",\n    \"details\": \"run pycni install again\"\n}");
    _exit(1);
}

/* Connect to the server at the path. Returns -1 if there is none, or it belongs to another user who is not root. */
static int connect_to_server(const char *path, int *is_absent) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    *is_absent = 0;
    if (strlen(path) >= sizeof address.sun_path) return -1;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    /* connect() waits this long while the queue of a busy server is full. */
    struct timeval timeout = {.tv_usec = CONNECT_MS * 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    struct ucred peer;
    socklen_t size = sizeof peer;
    int failed = connect(fd, (struct sockaddr *)&address, sizeof address) < 0;
    *is_absent = failed && errno != EAGAIN && errno != EINTR;
    if (failed || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
        (peer.uid != 0 && peer.uid != geteuid())) {
        close(fd);
        return -1;
    }
    timeout = (struct timeval){.tv_sec = ACCEPT_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    return fd;
}

static int send_all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return 0;
        data += sent;
        length -= (size_t)sent;
    }
    return 1;
}

/* Receive exactly `length` bytes. Returns 0 after the deadline or at the end of the connection. */
static int receive_all(int fd, char *data, size_t length, int milliseconds) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t end = now.tv_sec * 1000LL + now.tv_nsec / 1000000 + milliseconds;
    while (length) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t left = end - (now.tv_sec * 1000LL + now.tv_nsec / 1000000);
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = left > 0 ? poll(&wait, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return 0;
        ssize_t got = recv(fd, data, length, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        data += got;
        length -= (size_t)got;
    }
    return 1;
}

/* Send the call with its descriptors: our network namespace, the mount namespace for an on-demand server, and the
 * container's network namespace if CNI_NETNS can be opened. */
static int send_call(int fd, struct iovec parts[4], int on_demand) {
    int descriptors[3], count = 0;
    if ((descriptors[count] = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) < 0) return 0;
    count++;
    if (on_demand && (descriptors[count] = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)) < 0) return 0;
    count += on_demand;
    const char *netns = variable("CNI_NETNS");
    if (*netns && (descriptors[count] = open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) >= 0) count++;
    union { char space[CMSG_SPACE(sizeof descriptors)]; struct cmsghdr aligned; } control = {{0}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 4, .msg_control = &control,
                             .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(rights), descriptors, (size_t)count * sizeof(int));
    ssize_t sent;
    do sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    while (count--) close(descriptors[count]);
    if (sent < 0) return 0;
    for (int i = 0; i < 4; i++) { /* the rest, if sendmsg() has not sent all */
        size_t done = (size_t)sent < parts[i].iov_len ? (size_t)sent : parts[i].iov_len;
        sent -= (ssize_t)done;
        if (!send_all(fd, (char *)parts[i].iov_base + done, parts[i].iov_len - done)) return 0;
    }
    return 1;
}

/* Send the call to the server. Returns its reply, 'R' if there is none. Unless it is 'A', the server does nothing. */
static char submit(int fd, const char *type, char *data, size_t length, int on_demand) {
    size_t environment = 0;
    for (char **entry = environ; *entry; entry++) environment += strlen(*entry) + 1;
    char *block = malloc(environment + 1), *end = block;
    if (!block) return 'R';
    for (char **entry = environ; *entry; entry++) end = stpcpy(end, *entry) + 1;
    uint32_t magic = on_demand ? MAGIC_ON_DEMAND : MAGIC;
    uint32_t header[4] = {magic, (uint32_t)strlen(type), (uint32_t)environment, (uint32_t)length};
    struct iovec parts[4] = {{header, sizeof header}, {(char *)type, strlen(type)}, {block, environment}, {data, length}};
    char reply;
    if (send_call(fd, parts, on_demand) && receive_all(fd, &reply, 1, ACCEPT_MS)) return reply;
    /* Too late, or the server has ended: withdraw the call, unless the server accepts it at this moment. */
    shutdown(fd, SHUT_WR);
    return recv(fd, &reply, 1, MSG_DONTWAIT) == 1 ? reply : 'R';
}

/* Print the answer and exit with its status. Returns if there is none: 1 if the server has not executed the call. */
static int print_answer(int fd) {
    char reply = 0;
    uint32_t header[3];
    if (!receive_all(fd, &reply, 1, ANSWER_MS) || reply != 'D') return reply == 'R';
    if (!receive_all(fd, (char *)header, sizeof header, ANSWER_MS)) return 0;
    if (header[1] > ANSWER_MAX || header[2] > ANSWER_MAX) return 0;
    size_t length = (size_t)header[1] + header[2];
    char *text = malloc(length + 1);
    if (!text || !receive_all(fd, text, length, ANSWER_MS)) return 0;
    for (size_t done = 0; done < header[2];) {
        ssize_t wrote = write(2, text + header[1] + done, header[2] - done);
        if (wrote <= 0) break;
        done += (size_t)wrote;
    }
    for (size_t done = 0; done < header[1];) {
        ssize_t wrote = write(1, text + done, header[1] - done);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) {
            print(2, "Error writing the answer to stdout: ");
            print(2, strerror(errno));
            print(2, "\n");
            _exit(1);
        }
        done += (size_t)wrote;
    }
    _exit((int)header[0]);
}

/* Where the on-demand server of our user namespace listens: DIRECTORY/KEY-INODE.sock. */
struct place {
    char directory[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char socket[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* Find the place. DIRECTORY is $XDG_RUNTIME_DIR/pycni in a user namespace, else the directory of the installation's
 * socket; KEY is the name of the server's script. pycni/server/on_demand.py has the same rules. Returns 0 if there is no
 * such server for us. */
static int find_place(struct place *place) {
    const char *key = strrchr(setting(server_script), '/'), *base = setting(socket_path), *end = strrchr(base, '/');
    struct stat user;
    if (!key || !end || *variable("PYCNI_SOCKET") || geteuid() != 0 || stat("/proc/self/ns/user", &user) < 0) return 0;
    const char *runtime = user.st_ino == FIRST_USER_NAMESPACE ? NULL : secure_getenv("XDG_RUNTIME_DIR");
    int is_users = runtime && *runtime == '/';
    size_t length = is_users ? strlen(runtime) : (size_t)(end - base);
    if (length + strlen("/pycni") + strlen(key) + sizeof "-18446744073709551615.sock" > sizeof place->socket) return 0;
    memcpy(place->directory, is_users ? runtime : base, length);
    strcpy(place->directory + length, is_users ? "/pycni" : "");
    char number[24] = {0}, *digits = number + sizeof number - 1;
    for (uint64_t left = user.st_ino; left; left /= 10) *--digits = (char)('0' + left % 10);
    strcat(strcat(strcat(strcat(strcpy(place->socket, place->directory), key), "-"), digits), ".sock");
    return 1;
}

/* Whether only we may create files in the directory. */
static int is_trusted(const char *directory) {
    struct stat status;
    return lstat(directory, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid() &&
           !(status.st_mode & (S_IWGRP | S_IWOTH));
}

/* Open the log of the on-demand server, and lock it: its server holds the lock as long as it runs. Returns -1 if a
 * server runs, or an attempt to start one has failed a moment ago. */
static int lock_log(const struct place *place) {
    char path[sizeof place->socket];
    strcpy(path, place->socket);
    strcpy(path + strlen(path) - strlen("sock"), "log");
    int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return -1;
    struct stat opened, named;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &opened) == 0 && stat(path, &named) == 0 &&
        opened.st_ino == named.st_ino &&
        (opened.st_size == 0 || (uint64_t)(time(NULL) - opened.st_mtime) >= RETRY_SECONDS) && ftruncate(fd, 0) == 0)
        return fd;
    close(fd); /* if the server has removed the file at this moment, the next call starts another one */
    return -1;
}

/* Start an on-demand server once this process, which becomes the one-shot script, has ended. */
static void start_server(struct place *place) {
    if ((mkdir(place->directory, 0700) < 0 && errno != EEXIST) || !is_trusted(place->directory)) return;
    char script[1024], *command[] = {script, place->socket, NULL};
    char *environment[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", NULL};
    strcpy(script, setting(server_script));
    if (access(script, X_OK) < 0) return; /* pycni was uninstalled */
    int log = lock_log(place), caller = log < 0 ? -1 : (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (log < 0) return;
    if (fork() == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0 || setsid() < 0 || chdir("/") < 0) _exit(1);
        /* First of all, since a caller reads our stdout and stderr to their end. */
        dup2(null, 0);
        dup2(null, 1);
        dup2(log, 2);
        if (caller >= 0) {
            struct pollfd end = {.fd = caller, .events = POLLIN};
            while (poll(&end, 1, -1) < 0 && errno == EINTR) continue;
        }
        if (syscall(SYS_close_range, 3, ~0u, 0) < 0) /* Linux before 5.9 */
            for (int fd = 3; fd < 4096; fd++) close(fd);
        umask(022);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
        print(2, "starting\n");
        execve(script, command, environment);
        print(2, "cannot execute the server's script\n");
        _exit(1);
    }
    if (caller >= 0) close(caller);
    close(log);
}

int main(int argc, char **argv) {
    const char *name = argc > 0 ? argv[0] : "", *slash = strrchr(name, '/'), *type = slash ? slash + 1 : name;
    const char *command = variable("CNI_COMMAND"), *path = variable("PYCNI_SOCKET");
    int is_version = !*command || !strcmp(command, "VERSION"); /* needs no stdin; the script answers it without Python */
    char *data = "";
    size_t length = 0;
    int consumed = 0, is_absent;
    if (argc > 0) arguments = argv;
    if (!*command && argc > 1) oneshot(type, data, length, consumed); /* started by hand: `dhcp daemon` */
    if (!is_version) {
        if (!read_all(0, &data, &length)) oneshot(type, data, length, length > 0);
        consumed = 1;
    }
    if (length > STDIN_MAX) oneshot(type, data, length, consumed);
    int fd = connect_to_server(*path ? path : setting(socket_path), &is_absent);
    char reply = fd < 0 ? (is_absent ? 'N' : 'R') : submit(fd, type, data, length, 0);
    struct place place;
    if (reply == 'N' && find_place(&place)) {
        if (fd >= 0) close(fd);
        is_absent = 1;
        fd = is_trusted(place.directory) ? connect_to_server(place.socket, &is_absent) : -1;
        if (fd >= 0) reply = submit(fd, type, data, length, 1);
        else if (is_absent && !is_version) start_server(&place);
    }
    if (reply != 'A') {
        if (fd >= 0) close(fd);
        oneshot(type, data, length, consumed);
    }
    int not_executed = print_answer(fd);
    close(fd);
    if (not_executed || strcmp(command, "ADD")) oneshot(type, data, length, consumed);
    print(1, "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": 11,\n    \"msg\": \"the pycni server ended during the call\",\n"
           "    \"details\": \"try again later; DEL removes what the call has created\"\n}");
    return 1;
}
