/* Entry from a multiboot loader in 32-bit protected mode: the 64-bit build goes on to long mode, with low memory mapped one to one for
   the supervisor and again, user accessible, at USER_OFFSET; the 32-bit build stays in flat protected mode without paging. */
.section .multiboot, "a"
.align 4
.long 0x1BADB002, 0x00000003, -(0x1BADB002 + 0x00000003)

.text
.code32
.globl guest_entry
guest_entry:
    cli
    cld
    mov %ebx, boot_info
    mov $stack_top, %esp
    lgdt boot_gdt_pointer
#ifdef __x86_64__
    mov %cr4, %eax
    or $0x620, %eax             /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    call build_tables
    mov $guest_pml4, %eax
    mov %eax, %cr3
    mov $0xC0000080, %ecx
    rdmsr
    or $0x901, %eax             /* NXE, LME, SCE */
    wrmsr
    mov %cr0, %eax
    and $~0xc, %eax             /* EM, TS */
    or $0x80010022, %eax        /* PG, WP, NE, MP */
    mov %eax, %cr0
    ljmp $0x08, $1f
.code64
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $stack_top, %rsp
    fninit
    call guest_main
#else
    mov %cr4, %eax
    or $0x600, %eax
    mov %eax, %cr4
    mov %cr0, %eax
    and $~0xc, %eax
    or $0x22, %eax
    mov %eax, %cr0
    ljmp $0x08, $1f
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    fninit
    sub $12, %esp
    call guest_main
#endif
2:  hlt
    jmp 2b

#ifdef __x86_64__
.code32
/* Four page directories of 2 MiB pages; the second set has the user bit and covers the first GiB. */
build_tables:
    mov $guest_pdpt + 3, %eax
    mov %eax, guest_pml4
    mov $user_pdpt + 7, %eax
    mov %eax, guest_pml4 + 8
    mov $guest_pd + 3, %eax
    mov $guest_pdpt, %edi
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $4096, %eax
    add $8, %edi
    loop 1b
    mov $user_pd + 7, %eax
    mov %eax, user_pdpt
    mov $0x83, %eax
    mov $guest_pd, %edi
    mov $2048, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b
    mov $0x87, %eax
    mov $user_pd, %edi
    mov $512, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b
    ret

/* The start of every other CPU, copied to 0x8000: real mode, protected mode, long mode, ap_entry. */
.globl ap_trampoline, ap_trampoline_end
.code16
ap_trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl 0x8000 + trampoline_gdt_pointer - ap_trampoline
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x18, $(0x8000 + 1f - ap_trampoline)
.code32
1:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %ss
    mov %cr4, %eax
    or $0x620, %eax
    mov %eax, %cr4
    mov $guest_pml4, %eax
    mov %eax, %cr3
    mov $0xC0000080, %ecx
    rdmsr
    or $0x901, %eax
    wrmsr
    mov $0x80010033, %eax
    mov %eax, %cr0
    ljmp $0x08, $(0x8000 + 2f - ap_trampoline)
.code64
2:  mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    jmp 3f
trampoline_gdt_pointer:
    .word 0x37
    .long boot_gdt
3:  movabs $ap_continue, %rax
    jmp *%rax
ap_trampoline_end:
ap_continue:
    mov $1, %eax
    lock xaddl %eax, ap_number(%rip)
    mov %eax, %edi
    inc %edi                    /* the boot CPU is number 0 */
    shl $14, %eax
    lea ap_stacks + 16384(%rip), %rsp
    add %rax, %rsp
    call ap_entry
4:  hlt
    jmp 4b
#endif

.data
.globl boot_info
boot_info: .long 0
.align 8
boot_gdt:
    .quad 0
#ifdef __x86_64__
    .quad 0x00af9a000000ffff
#else
    .quad 0x00cf9a000000ffff
#endif
    .quad 0x00cf92000000ffff
    .quad 0x00cf9a000000ffff
    .quad 0, 0, 0
boot_gdt_pointer:
    .word 0x37
    .long boot_gdt
#ifdef __x86_64__
ap_number: .long 0
#endif

.bss
.align 4096
#ifdef __x86_64__
.globl guest_pml4
guest_pml4: .skip 4096
guest_pdpt: .skip 4096
user_pdpt: .skip 4096
guest_pd: .skip 4 * 4096
user_pd: .skip 4096
.globl ap_stacks
ap_stacks: .skip 16 * 16384
#endif
.skip 65536
.globl stack_top
stack_top:
