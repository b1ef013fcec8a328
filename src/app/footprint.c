/* See footprint.h.
 *
 * Code. libpq and librdkafka bring thirty libraries with them (TLS, Kerberos, LDAP, SASL); loading and initialising them maps
 * two thirds of what an idle daemon has resident, code and symbol tables that are never looked at again unless they are in use.
 *
 * Those pages are copies of a file's: the kernel may take them from us at any time and maps them again, from the page cache, when they are
 * touched. It is asked to do so once, for segments that the program header gives as not writable. Segments that were ever writable, also
 * those that are protected after relocation (RELRO), keep pages of their own and are left alone; so are objects with relocations in their
 * code. The price is some hundred minor faults, and breakpoints that a debugger or a tracer had put into code already. */
#include "app/footprint.h"

#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <unistd.h>

void hv_footprint_set_up(void) {
    /* librdkafka's threads would take an arena each; those that allocate much do so for the loop's thread, or free what it allocated,
     * so that they meet in one arena anyway. */
    mallopt(M_ARENA_MAX, 1);
    /* Its default, but fixed: otherwise it rises with the first reply or batch that is freed, and those lie between small things. */
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
}

static bool is_written_by_relocation(const struct dl_phdr_info *object, const ElfW(Phdr) *dynamic) {
    const ElfW(Dyn) *entry = (const ElfW(Dyn) *)(object->dlpi_addr + dynamic->p_vaddr);
    for (; entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_TEXTREL || (entry->d_tag == DT_FLAGS && (entry->d_un.d_val & DF_TEXTREL) != 0)) {
            return true;
        }
    }
    return false;
}

static bool is_as_in_its_file(const struct dl_phdr_info *object) {
    uintptr_t vdso = getauxval(AT_SYSINFO_EHDR); /* the kernel's own, and in no file */
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && object->dlpi_addr + p->p_vaddr == vdso) {
            return false;
        }
        if (p->p_type == PT_DYNAMIC && is_written_by_relocation(object, p)) {
            return false;
        }
    }
    return true;
}

/* The dynamic linker holds its lock meanwhile: nothing is unloaded, or loaded, under our hands. */
static int let_go_of_object(struct dl_phdr_info *object, size_t size, void *user) {
    (void)size;
    (void)user;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (!is_as_in_its_file(object)) {
        return 0;
    }
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || (p->p_flags & PF_W) != 0) {
            continue;
        }
        uintptr_t start = (object->dlpi_addr + p->p_vaddr) & ~(page - 1);
        uintptr_t end = (object->dlpi_addr + p->p_vaddr + p->p_memsz + page - 1) & ~(page - 1);
        madvise((void *)start, end - start, MADV_DONTNEED); /* a wish */
    }
    return 0;
}

void hv_footprint_work_is_over(void) {
    malloc_trim(0);
}

void hv_footprint_start_is_over(void) {
    malloc_trim(0);
    dl_iterate_phdr(let_go_of_object, NULL);
}
