# A library that is linked on a new Linux and loads on an old one.
#
# glibc 2.34 moved the functions of libdl, libpthread and librt into libc and gave them a new version, which every
# linker there takes, and no older system has. The static CUDA runtime calls them; it was compiled, so its calls cannot
# be changed, but the linker sends calls of a wrapped name to `__wrap_<name>`: a jump to the same function under its
# first version, which every glibc for x86-64 has had since. The old libraries are named as well, for that is where an
# old system looks. `auditwheel show` tells whether the list is whole.
set(ELASTIC_OLD_GLIBC_2_2_5
  dlclose dlerror dlopen dlsym dlvsym
  pthread_condattr_setpshared pthread_create pthread_detach pthread_getspecific pthread_join pthread_key_create
  pthread_key_delete pthread_kill pthread_mutex_trylock pthread_mutexattr_destroy pthread_mutexattr_init
  pthread_mutexattr_setpshared pthread_mutexattr_settype pthread_once pthread_rwlock_destroy pthread_rwlock_init
  pthread_rwlock_rdlock pthread_rwlock_timedrdlock pthread_rwlock_timedwrlock pthread_rwlock_tryrdlock
  pthread_rwlock_trywrlock pthread_rwlock_unlock pthread_rwlock_wrlock pthread_rwlockattr_destroy
  pthread_rwlockattr_init pthread_rwlockattr_setpshared pthread_setspecific pthread_spin_destroy pthread_spin_init
  pthread_spin_lock pthread_spin_trylock pthread_spin_unlock
  sem_destroy sem_init sem_post sem_timedwait sem_trywait sem_wait shm_open shm_unlink)
set(ELASTIC_OLD_GLIBC_2_3_4 dlmopen)

# Make `elastic_old_glibc`, whose users link as described; elsewhere than on Linux x86-64 it changes nothing.
function(elastic_make_old_glibc)
  add_library(elastic_old_glibc INTERFACE)
  if(NOT (CMAKE_SYSTEM_NAME STREQUAL Linux AND CMAKE_SYSTEM_PROCESSOR STREQUAL x86_64))
    return()
  endif()
  set(source ${CMAKE_CURRENT_BINARY_DIR}/old_glibc.cpp)
  set(text "")
  foreach(version 2.2.5 2.3.4)
    string(REPLACE . _ suffix ${version})
    foreach(name IN LISTS ELASTIC_OLD_GLIBC_${suffix})
      string(APPEND text "JUMP(${name}, ${version})\n")
      target_link_options(elastic_old_glibc INTERFACE LINKER:--wrap=${name})
    endforeach()
  endforeach()
  set(jump [[#define JUMP(name, version)                                             \
  asm(".text\n.symver old_" #name ", " #name "@GLIBC_" #version "\n"       \
      ".globl __wrap_" #name "\n.hidden __wrap_" #name "\n"                \
      ".type __wrap_" #name ", @function\n"                                \
      "__wrap_" #name ":\n  jmp *old_" #name "@GOTPCREL(%rip)\n");
]])
  file(CONFIGURE OUTPUT ${source} CONTENT "${jump}${text}" @ONLY)
  target_sources(elastic_old_glibc INTERFACE ${source})
  target_link_options(elastic_old_glibc INTERFACE
    LINKER:--no-as-needed -l:libpthread.so.0 -l:libdl.so.2 -l:librt.so.1 LINKER:--as-needed)
endfunction()
