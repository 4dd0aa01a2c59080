/* A CUDA driver that computes nothing: memory is zeroed host memory, a launch is counted and left
 * undone. With the real NVRTC beside it, everything that burn-cuda does on the host happens (every
 * kernel of a run is generated, compiled for sm_90 and launched with checked dimensions), so
 * kernels that do not compile, wrong dispatch, host synchronisations and launch counts show without
 * a GPU. What it cannot show: any number that a kernel would compute, or any time.
 * DRY_CUDA_LOG=FILE gets the counts at exit; the file named by DRY_CUDA_MARK, when it appears or
 * changes, is a place to split them (see README). */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef int R;
typedef unsigned long long P;
typedef void *H;
static atomic_llong launches, htod, dtoh, dtod, htod_n, dtoh_n, dtod_n, syncs, allocs, alloc_bytes,
    live_bytes, peak_bytes, modules, graphs, replays, memsets, bad;
static _Atomic int capturing;
static atomic_llong captured;
static struct {
  char name[160];
  long long n;
} names[8192];
static int n_names;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
struct func {
  char name[160];
};
static void out(void) {
  const char *p = getenv("DRY_CUDA_LOG");
  FILE *f = p ? fopen(p, "w") : stderr;
  if (!f)
    return;
  fprintf(
      f,
      "launches %lld\nkernels_compiled_and_loaded %lld\nhost_to_device %lld copies %lld "
      "bytes\ndevice_to_host %lld copies %lld bytes\ndevice_to_device %lld copies %lld bytes\n"
      "synchronisations %lld\nallocations %lld\nallocated_bytes %lld\npeak_bytes %lld\nmemsets "
      "%lld\ngraphs_captured %lld with %lld launches\ngraph_replays %lld\nrefused_launches %lld\n",
      launches, modules, htod_n, htod, dtoh_n, dtoh, dtod_n, dtod, syncs, allocs, alloc_bytes,
      peak_bytes, memsets, graphs, captured, replays, bad);
  for (int i = 0; i < n_names; i++)
    fprintf(f, "kernel %lld %s\n", names[i].n, names[i].name);
  if (p)
    fclose(f);
}
__attribute__((constructor)) static void start(void) { atexit(out); }
#define OK return 0
R cuInit(unsigned f) { OK; }
R cuDriverGetVersion(int *v) {
  const char *s = getenv("DRY_CUDA_VERSION");
  *v = s ? atoi(s) : 12090;
  OK;
}
static int number(const char *k, int d) {
  const char *s = getenv(k);
  return s ? atoi(s) : d;
}
/* DRY_CUDA_MIB=N: the memory of a device, which allocations cannot exceed */
static long long memory(void) { return (long long)number("DRY_CUDA_MIB", 80 << 10) << 20; }
R cuDeviceGet(int *d, int i) {
  *d = i;
  return i < number("DRY_CUDA_DEVICES", 1) ? 0 : 101;
}
R cuDeviceGetCount(int *n) {
  *n = number("DRY_CUDA_DEVICES", 1);
  OK;
}
R cuDeviceGetName(char *s, int n, int d) {
  snprintf(s, n, "Dry H100 (computes nothing)");
  OK;
}
R cuDeviceTotalMem_v2(size_t *b, int d) {
  *b = memory();
  OK;
}
R cuDeviceGetPCIBusId(char *s, int n, int d) {
  snprintf(s, n, "0000:01:00.0");
  OK;
}
R cuDeviceGetLuid(char *l, unsigned *m, int d) { return 801; }
R cuDeviceGetUuid_v2(char *u, int d) {
  memset(u, 7, 16);
  OK;
}
R cuDeviceGetUuid(char *u, int d) {
  memset(u, 7, 16);
  OK;
}
R cuDeviceGetAttribute(int *v, int a, int d) {
  static const int t[][2] = {
      {1, 1024},      {2, 1024},   {3, 1024},  {4, 64},  {5, 2147483647},  {6, 65535},
      {7, 65535},     {8, 49152},  {9, 65536}, {10, 32}, {11, 2147483647}, {12, 65536},
      {13, 1980000},  {16, 132},   {17, 0},    {31, 1},  {36, 2619000},    {37, 5120},
      {38, 52428800}, {39, 2048},  {40, 3},    {41, 1},  {75, 9},          {76, 0},
      {81, 233472},   {82, 65536}, {83, 1},    {95, 1},  {97, 232448},     {106, 32},
      {115, 1},       {120, 1}};
  *v = 0;
  for (unsigned i = 0; i < sizeof t / sizeof *t; i++)
    if (t[i][0] == a)
      *v = t[i][1];
  int cc = number("DRY_CUDA_CC", 90);
  if (a == 75)
    *v = cc / 10;
  if (a == 76)
    *v = cc % 10;
  if (cc < 90 && a == 120)
    *v = 0;
  OK;
}
R cuDevicePrimaryCtxRetain(H *c, int d) {
  *c = (H)0x1000;
  OK;
}
R cuDevicePrimaryCtxRelease_v2(int d) { OK; }
R cuCtxSetCurrent(H c) { OK; }
R cuCtxGetCurrent(H *c) {
  *c = (H)0x1000;
  OK;
}
R cuCtxGetDevice(int *d) {
  *d = 0;
  OK;
}
R cuCtxSynchronize(void) {
  syncs++;
  OK;
}
R cuCtxGetStreamPriorityRange(int *l, int *g) {
  *l = 0;
  *g = -5;
  OK;
}
R cuCtxEnablePeerAccess(H c, unsigned f) { OK; }
R cuMemGetInfo_v2(size_t *f, size_t *t) {
  *t = memory();
  *f = *t - live_bytes;
  OK;
}
static void note(size_t n) {
  allocs++;
  alloc_bytes += n;
  long long l = live_bytes += n;
  long long p = peak_bytes;
  while (l > p && !atomic_compare_exchange_weak(&peak_bytes, &p, l))
    ;
}
/* aligned to 512 bytes; the size and the address for `free` are kept in front. Memory that nobody
 * writes takes no room, so that a run may "allocate" more than the machine has */
R cuMemAlloc_v2(P *p, size_t n) {
  char *all = live_bytes + (long long)n > memory() ? NULL : calloc(1, n + 1024);
  if (!all)
    return 2;
  size_t *q = (size_t *)(((uintptr_t)all + 1023) / 512 * 512);
  q[-1] = n;
  q[-2] = (size_t)(uintptr_t)all;
  note(n);
  *p = (P)(uintptr_t)q;
  OK;
}
R cuMemFree_v2(P p) {
  if (p) {
    size_t *q = (size_t *)(uintptr_t)p;
    live_bytes -= q[-1];
    free((void *)(uintptr_t)q[-2]);
  }
  OK;
}
R cuMemAllocAsync(P *p, size_t n, H s) { return cuMemAlloc_v2(p, n); }
R cuMemFreeAsync(P p, H s) { return cuMemFree_v2(p); }
R cuMemAllocHost_v2(void **p, size_t n) {
  *p = calloc(1, n + 1);
  OK;
}
R cuMemHostAlloc(void **p, size_t n, unsigned f) {
  *p = calloc(1, n + 1);
  OK;
}
R cuMemFreeHost(void *p) {
  free(p);
  OK;
}
R cuMemcpyHtoDAsync_v2(P d, const void *s, size_t n, H q) {
  htod_n++;
  htod += n;
  memcpy((void *)(uintptr_t)d, s, n);
  OK;
}
R cuMemcpyDtoHAsync_v2(void *d, P s, size_t n, H q) {
  dtoh_n++;
  dtoh += n;
  if (number("DRY_CUDA_ZERO_READS", 0))
    memset(d, 0, n);
  else
    memcpy(d, (void *)(uintptr_t)s, n);
  OK;
}
R cuMemcpyDtoDAsync_v2(P d, P s, size_t n, H q) {
  dtod_n++;
  dtod += n;
  memmove((void *)(uintptr_t)d, (void *)(uintptr_t)s, n);
  OK;
}
R cuMemcpyHtoD_v2(P d, const void *s, size_t n) { return cuMemcpyHtoDAsync_v2(d, s, n, 0); }
R cuMemcpyDtoH_v2(void *d, P s, size_t n) {
  syncs++;
  return cuMemcpyDtoHAsync_v2(d, s, n, 0);
}
struct copy2 {
  size_t sx, sy;
  int st;
  const void *sh;
  P sd;
  H sa;
  size_t sp;
  size_t dx, dy;
  int dt;
  void *dh;
  P dd;
  H da;
  size_t dp;
  size_t w, h;
};
R cuMemcpy2DAsync_v2(const struct copy2 *c, H q) {
  const char *s = c->st == 1 ? c->sh : (const char *)(uintptr_t)c->sd;
  char *d = c->dt == 1 ? c->dh : (char *)(uintptr_t)c->dd;
  if (c->st == 1) {
    htod_n++;
    htod += c->w * c->h;
  } else if (c->dt == 1) {
    dtoh_n++;
    dtoh += c->w * c->h;
  } else {
    dtod_n++;
    dtod += c->w * c->h;
  }
  for (size_t y = 0; y < c->h; y++)
    memmove(d + (c->dy + y) * c->dp + c->dx, s + (c->sy + y) * c->sp + c->sx, c->w);
  OK;
}
R cuMemsetD8Async(P d, unsigned char v, size_t n, H s) {
  memsets++;
  memset((void *)(uintptr_t)d, v, n);
  OK;
}
R cuMemsetD32Async(P d, unsigned v, size_t n, H s) {
  memsets++;
  for (size_t i = 0; i < n; i++)
    ((unsigned *)(uintptr_t)d)[i] = v;
  OK;
}
R cuStreamCreate(H *s, unsigned f) {
  *s = malloc(8);
  OK;
}
R cuStreamCreateWithPriority(H *s, unsigned f, int p) {
  *s = malloc(8);
  OK;
}
R cuStreamDestroy_v2(H s) { OK; }
R cuStreamSynchronize(H s) {
  syncs++;
  return capturing ? 900 : 0;
}
R cuStreamQuery(H s) { OK; }
R cuStreamWaitEvent(H s, H e, unsigned f) { OK; }
R cuStreamBeginCapture_v2(H s, int m) {
  if (capturing)
    return 900;
  capturing = 1;
  OK;
}
R cuStreamEndCapture(H s, H *g) {
  if (!capturing)
    return 901;
  capturing = 0;
  graphs++;
  *g = malloc(8);
  OK;
}
R cuStreamIsCapturing(H s, int *v) {
  *v = capturing;
  OK;
}
R cuGraphGetNodes(H g, H *n, size_t *c) {
  *c = 0;
  OK;
}
R cuGraphNodeGetType(H n, int *t) {
  *t = 0;
  OK;
}
R cuGraphInstantiateWithFlags(H *e, H g, unsigned long long f) {
  *e = malloc(8);
  OK;
}
R cuGraphUpload(H e, H s) { OK; }
R cuGraphLaunch(H e, H s) {
  replays++;
  OK;
}
R cuGraphDestroy(H g) { OK; }
R cuGraphExecDestroy(H e) { OK; }
/* a clock that a launch moves by 5 ms: throughput probes and autotune, which repeat until enough
 * time has passed, end at once */
R cuEventCreate(H *e, unsigned f) {
  *e = calloc(1, 8);
  OK;
}
R cuEventRecord(H e, H s) {
  *(long long *)e = launches + replays;
  OK;
}
R cuEventQuery(H e) { OK; }
R cuEventSynchronize(H e) {
  syncs++;
  OK;
}
R cuEventElapsedTime(float *ms, H a, H b) {
  *ms = 5.0f * (*(long long *)b - *(long long *)a) + 0.01f;
  OK;
}
R cuEventElapsedTime_v2(float *ms, H a, H b) { return cuEventElapsedTime(ms, a, b); }
R cuEventDestroy_v2(H e) {
  free(e);
  OK;
}
R cuModuleLoadData(H *m, const void *image) { /* PTX, zero-terminated; kept for ptxas where
                                                 DRY_CUDA_PTX names a folder */
  long long k = modules++;
  const char *dir = getenv("DRY_CUDA_PTX");
  *m = malloc(8);
  if (dir && !strncmp(image, "//", 2)) {
    char p[4096];
    snprintf(p, sizeof p, "%s/%05lld.ptx", dir, k);
    FILE *f = fopen(p, "w");
    if (f) {
      fputs(image, f);
      fclose(f);
    }
  }
  OK;
}
R cuModuleLoadDataEx(H *m, const void *image, unsigned n, int *o, void **v) {
  return cuModuleLoadData(m, image);
}
R cuModuleUnload(H m) { OK; }
R cuModuleGetFunction(H *f, H m, const char *name) {
  struct func *p = malloc(sizeof *p);
  snprintf(p->name, sizeof p->name, "%s", name);
  *f = p;
  OK;
}
R cuFuncSetAttribute(H f, int a, int v) { return v > 232448 && a == 8 ? 1 : 0; }
R cuFuncGetAttribute(int *v, int a, H f) {
  *v = a == 0 ? 1024 : 0;
  OK;
}
R cuLaunchKernel(H f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                 unsigned sh, H s, void **a, void **e) {
  if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || (long long)bx * by * bz > 1024 || !bx ||
      !by || !bz || bz > 64 || sh > 232448) {
    bad++;
    return 1;
  }
  launches++;
  if (capturing)
    captured++;
  pthread_mutex_lock(&lock);
  int i = 0;
  while (i < n_names && strcmp(names[i].name, ((struct func *)f)->name))
    i++;
  if (i == n_names && n_names < 8192)
    strcpy(names[n_names++].name, ((struct func *)f)->name);
  if (i < n_names)
    names[i].n++;
  pthread_mutex_unlock(&lock);
  OK;
}
R cuTensorMapEncodeTiled() { OK; }
R cuTensorMapEncodeIm2col() { OK; }
R cuTensorMapEncodeIm2colWide() { OK; }
R cuGetErrorString(R r, const char **s) {
  *s = "dry driver";
  OK;
}
R cuGetErrorName(R r, const char **s) {
  *s = "DRY";
  OK;
}
R cuGetProcAddress_v2(const char *n, void **p, int v, uint64_t f, int *st) {
  *p = NULL;
  return 500;
}
