/* Preloaded into Sentinel: what went wrong while it connected does not stay with the socket.
 *
 * To an address of a Service without pods, as during any restart, the first packet is answered by ICMP's "port
 * unreachable". As that comes within the call of connect(), the kernel does not end the attempt. It keeps the error for
 * getsockopt(SO_ERROR), and a copy in the socket's queue of errors, for which it says EPOLLERR as long as it lies there.
 * Sentinel's library asks connect() again, hears EALREADY, and is woken again at once. When the next packet, a second
 * later, finds a pod, the connection works and keeps its copy: all the time that the processor has to give goes into
 * waking up, for hours (https://github.com/redis/redis/issues/9956).
 *
 * Here the library hears the error, closes the socket and tries again a second later, as it does when a connection is
 * refused. A connection that came about before it asked again has its queue emptied.
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
    char copy;
    int result = (int)syscall(SYS_connect, socket, address, length);
    int error = errno;

    if (result == 0 || error == EISCONN)
        while (recv(socket, &copy, sizeof copy, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
            ;
    else if (error == EALREADY && getsockopt(socket, SOL_SOCKET, SO_ERROR, &kept, &size) == 0 && kept != 0)
        error = kept;
    errno = error;
    return result;
}
