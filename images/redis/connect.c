/* Preloaded into Sentinel: an attempt to connect ends with its first error, however that was told.
 *
 * To an address of a Service without pods, as during any restart, the kernel's answer is ICMP's "port unreachable". When
 * it comes while the process is inside a call on the socket, as it does on the first packet, the kernel keeps it for
 * getsockopt(SO_ERROR) and tells it by EPOLLERR: from then on, and for the life of a connection that comes about after
 * all. Sentinel's library asks connect() again, hears EALREADY, waits on, and is woken again at once: all the time that
 * the processor has to give, for hours (https://github.com/redis/redis/issues/9956). Here it hears the error, closes the
 * socket and tries again a second later, as it does when a connection is refused.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int connect(int socket, const struct sockaddr *address, socklen_t length)
{
    int kept = 0;
    socklen_t size = sizeof kept;

    if (syscall(SYS_connect, socket, address, length) == 0)
        return 0;
    if (errno == EALREADY) {
        int unknown = getsockopt(socket, SOL_SOCKET, SO_ERROR, &kept, &size);
        errno = unknown || kept == 0 ? EALREADY : kept;
    }
    return -1;
}
